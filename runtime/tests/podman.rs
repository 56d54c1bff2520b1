//! Podman, as its users call it with another runtime.

mod common;
mod rootless;

use std::process::{Command, Stdio};

use common::consumer::{Client, installed, remove_cgroup, unique, unmount_below};

/// Podman with separate storage and state for the test.
struct Podman {
    client: Client,
    directory: tempfile::TempDir,
    name: String,
}

impl Podman {
    /// `None` where the test can't run.
    fn new() -> Option<Self> {
        if !common::can_run() {
            return None;
        }
        let program = installed("podman")?;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        common::make_root(&path("rootfs"));
        // With locks in shared memory it would share them with the machine's Podman.
        std::fs::write(path("containers.conf"), "[engine]\nlock_type = \"file\"\n").unwrap();
        let client = Client::new(
            &program,
            &[
                &"--storage-driver",
                &"vfs",
                &"--cgroup-manager",
                &"cgroupfs",
                &"--root",
                &path("storage"),
                &"--runroot",
                &path("run"),
                &"--tmpdir",
                &path("state"),
                &"--runtime",
                &*common::RUNTIME,
            ],
        )
        .with("CONTAINERS_CONF", path("containers.conf"));
        let name = unique(&directory);
        Some(Self {
            client,
            directory,
            name,
        })
    }

    /// The arguments of `run`. Podman's default limit of processes is removed, because a machine
    /// with version 1 controllers can't set it. Limits above the caller's are removed, too.
    fn run(&self, options: &[&str], command: &[&str]) -> Vec<String> {
        let rootfs = self.directory.path().join("rootfs").display().to_string();
        let parent = format!("--cgroup-parent=/{}", self.name);
        let fixed = [
            "run",
            "--network=none",
            "--pids-limit=0",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            &parent,
        ];
        let place = ["--rootfs", &rootfs];
        [&fixed[..], options, &place, command]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn state(&self, wanted: &str) {
        let format = "{{.State.Status}} {{.State.ExitCode}}";
        self.client
            .says(wanted, &["inspect", "--format", format, "one"]);
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.client.call(&["rm", "--all", "--force", "--time", "0"]);
        unmount_below(self.directory.path());
        remove_cgroup(&self.name);
    }
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

#[test]
fn podman_runs_a_container() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let run = podman.run(&["--rm"], &["sh", "-c", "echo out; id -u; exit 3"]);
    assert_eq!(podman.client.exits(3, &words(&run)), "out\n0");
    assert_eq!(podman.client.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn podman_maps_users() {
    let Some(podman) = Podman::new() else {
        return;
    };
    common::give(&podman.directory.path().join("rootfs"), 200_000);
    let script = "id -u; cat /proc/self/uid_map; stat -c %u /bin; touch /made";
    let map = "0:200000:65536";
    let options = ["--rm", "--uidmap", map, "--gidmap", map];
    let run = podman.run(&options, &["sh", "-c", script]);
    let output = podman.client.ok(&words(&run));
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "200000", "65536", "0"]);
    let made = std::fs::metadata(podman.directory.path().join("rootfs/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 200_000);
}

#[test]
fn podman_executes_pauses_stops_and_removes() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let client = &podman.client;
    let script = "trap 'exit 9' TERM; echo started; while :; do sleep 0.02; done";
    let run = podman.run(&["--detach", "--name", "one"], &["sh", "-c", script]);
    client.ok(&words(&run));
    client.says("started", &["logs", "one"]);
    let exec = ["exec", "one", "sh", "-c", "echo inside; exit 4"];
    assert_eq!(client.exits(4, &exec), "inside");
    client.ok(&["pause", "one"]);
    podman.state("paused 0");
    client.ok(&["unpause", "one"]);
    podman.state("running 0");
    client.ok(&["stop", "one"]);
    podman.state("exited 9");
    client.ok(&["start", "one"]);
    client.ok(&["kill", "one"]);
    podman.state("exited 137");
    client.ok(&["rm", "one"]);
    assert_eq!(client.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn podman_gives_a_terminal() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let run = podman.run(
        &["--rm", "--interactive", "--tty"],
        &["sh", "-c", common::consumer::IN_TERMINAL],
    );
    let (shown, code) = podman.client.in_terminal(&words(&run));
    assert_eq!(code, Some(5), "{shown}");
}

#[test]
fn podman_does_without_cgroups() {
    if !common::can_run() {
        return;
    }
    let Some(program) = installed("podman") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    common::make_root(&path("rootfs"));
    // Podman decides by the program's name whether the runtime can work without cgroups. On a
    // machine with version 1 controllers it must.
    std::os::unix::fs::symlink(&*common::RUNTIME, path("crun")).unwrap();
    let output = Command::new(program)
        .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
        .arg("--root")
        .arg(path("storage"))
        .arg("--runroot")
        .arg(path("run"))
        .arg("--runtime")
        .arg(path("crun"))
        .args([
            "run",
            "--rm",
            "--cgroups=disabled",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
        ])
        .args(["--log-driver=none", "--rootfs"])
        .arg(path("rootfs"))
        .args(["sh", "-c", "cat; id -u; hostname; exit 7"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{error}");
    assert!(output.stdout.starts_with(b"0\n"), "{error}");
}
