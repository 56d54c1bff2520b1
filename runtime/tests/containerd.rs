//! containerd with its own shim, called by `ctr --runc-binary`.

mod common;

use std::process::Command;

use common::consumer::{Client, Daemon, image, installed, unique};

const IMAGE: &str = "docker.io/library/box:1";

struct Containerd {
    client: Client,
    _daemon: Daemon,
}

impl Containerd {
    /// A containerd of the test's own with an image; `None` where the test can't run.
    fn start() -> Option<Self> {
        if !common::can_run() {
            return None;
        }
        let (program, ctr) = (installed("containerd")?, installed("ctr")?);
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("grpc.sock"),
            path("ttrpc.sock"),
        );
        std::fs::write(path("config.toml"), config).unwrap();
        let name = unique(&directory);
        let archive = image(directory.path(), IMAGE);
        let mut command = Command::new(program);
        command.arg("--config").arg(path("config.toml"));
        let client = Client::new(
            &ctr,
            &[&"--address", &path("grpc.sock"), &"--namespace", &name],
        );
        // containerd names a container's cgroup after the namespace and the container.
        let mut daemon = Daemon::start(directory, &name, command);
        daemon.answers(&client, &["version"]);
        let archive = archive.to_string_lossy().into_owned();
        client.ok(&["image", "import", "--snapshotter", "native", &archive]);
        Some(Self {
            client,
            _daemon: daemon,
        })
    }

    /// The arguments of `run` up to the container's name.
    fn run<'a>(options: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["run"];
        all.extend(options);
        all.extend(["--snapshotter", "native", "--runc-binary", &common::RUNTIME]);
        all.push(IMAGE);
        all.extend(rest);
        all
    }
}

#[test]
fn ctr_runs_a_container() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let run = Containerd::run(&["--rm"], &["one", "sh", "-c", "echo out; id -u; exit 3"]);
    assert_eq!(containerd.client.exits(3, &run), "out\n0");
    assert_eq!(containerd.client.ok(&["containers", "list", "-q"]), "");
}

#[test]
fn ctr_executes_pauses_kills_and_removes() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let client = &containerd.client;
    client.ok(&Containerd::run(&["--detach"], &["one", "sleep", "1000"]));
    client.says("RUNNING", &["tasks", "list"]);
    let exec = ["tasks", "exec", "--exec-id", "further", "one"];
    let exec = [&exec[..], &["sh", "-c", "echo inside; exit 4"]].concat();
    assert_eq!(client.exits(4, &exec), "inside");
    client.ok(&["tasks", "pause", "one"]);
    client.says("PAUSED", &["tasks", "list"]);
    client.ok(&["tasks", "resume", "one"]);
    client.says("RUNNING", &["tasks", "list"]);
    client.ok(&["tasks", "kill", "--signal", "SIGKILL", "one"]);
    client.says("STOPPED", &["tasks", "list"]);
    // Its exit code is the container's exit code.
    client.call(&["tasks", "rm", "one"]);
    client.ok(&["containers", "rm", "one"]);
    assert_eq!(client.ok(&["containers", "list", "-q"]), "");
}

#[test]
fn ctr_gives_a_terminal() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let run = Containerd::run(
        &["--rm", "--tty"],
        &["one", "sh", "-c", common::consumer::IN_TERMINAL],
    );
    let (shown, code) = containerd.client.in_terminal(&run);
    assert_eq!(code, Some(5), "{shown}");
}
