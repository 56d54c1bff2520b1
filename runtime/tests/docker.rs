//! Docker, with our runtime beside its own. `KEELSON_DOCKER` names the client (default: the
//! installed one).

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::consumer::{Client, Daemon, archive, installed, unique};

struct Docker {
    client: Client,
    _daemon: Daemon,
}

impl Docker {
    /// A dockerd of the test's own with an image; `None` where the test can't run.
    fn start() -> Option<Self> {
        if !common::can_run() {
            return None;
        }
        let program = installed("dockerd")?;
        let docker = std::env::var_os("KEELSON_DOCKER")
            .map(PathBuf::from)
            .or_else(|| installed("docker"))?;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let name = unique(&directory);
        let host = format!("unix://{}", path("docker.sock").display());
        let mut command = Command::new(program);
        command
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .args(["--host", &host])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--storage-driver", "vfs"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", &format!("/{name}")])
            .arg("--add-runtime")
            .arg(format!("keelson={}", *common::RUNTIME));
        let client = Client::new(&docker, &[&"--host", &host]).with("DOCKER_CONFIG", path("cli"));
        common::make_root(&path("root"));
        archive(&path("root"), &path("root.tar"));
        let contents = path("root.tar").to_string_lossy().into_owned();
        let mut daemon = Daemon::start(directory, &name, command);
        daemon.answers(&client, &["version"]);
        client.ok(&["import", &contents, "box:1"]);
        Some(Self {
            client,
            _daemon: daemon,
        })
    }

    /// The arguments of `run` in front of the command.
    fn run<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["run", "--runtime", "keelson", "--network", "none"];
        all.extend(options);
        all.push("box:1");
        all.extend(command);
        all
    }
}

#[test]
fn docker_runs_a_container() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let run = Docker::run(&["--rm"], &["sh", "-c", "echo out; id -u; exit 3"]);
    assert_eq!(docker.client.exits(3, &run), "out\n0");
    assert_eq!(docker.client.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn docker_executes_pauses_stops_and_removes() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let client = &docker.client;
    let state = |wanted: &str| {
        let format = "{{.State.Status}} {{.State.ExitCode}}";
        client.says(wanted, &["inspect", "--format", format, "one"]);
    };
    let script = "trap 'exit 9' TERM; echo started; while :; do sleep 0.02; done";
    client.ok(&Docker::run(
        &["--detach", "--name", "one"],
        &["sh", "-c", script],
    ));
    client.says("started", &["logs", "one"]);
    let exec = ["exec", "one", "sh", "-c", "echo inside; exit 4"];
    assert_eq!(client.exits(4, &exec), "inside");
    client.ok(&["pause", "one"]);
    state("paused 0");
    client.ok(&["unpause", "one"]);
    state("running 0");
    assert!(client.ok(&["top", "one"]).contains("trap 'exit 9'"));
    client.ok(&["stop", "one"]);
    state("exited 9");
    client.ok(&["start", "one"]);
    client.ok(&["kill", "one"]);
    state("exited 137");
    client.ok(&["rm", "one"]);
    assert_eq!(client.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn docker_applies_its_restrictions() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let options = [
        "--rm",
        "--user=1000:1000",
        "--cap-drop=ALL",
        "--read-only",
        "--tmpfs=/tmp:mode=1777",
        "--security-opt=no-new-privileges",
        "--hostname=named",
        "--ulimit=nofile=100:200",
    ];
    let script = "id -u; hostname; ulimit -n; touch /x 2>/dev/null || echo read-only; \
                  touch /tmp/x && echo written; \
                  grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status";
    let text = docker
        .client
        .ok(&Docker::run(&options, &["sh", "-c", script]));
    assert_eq!(
        text,
        "1000\nnamed\n100\nread-only\nwritten\n\
         CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2"
    );
}

#[test]
fn docker_gives_a_terminal() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let run = Docker::run(
        &["--rm", "--interactive", "--tty"],
        &["sh", "-c", common::consumer::IN_TERMINAL],
    );
    let (shown, code) = docker.client.in_terminal(&run);
    assert_eq!(code, Some(5), "{shown}");
}
