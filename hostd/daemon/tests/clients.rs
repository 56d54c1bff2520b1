//! Clients that others wrote, each through a scenario of its own. Bollard's is in `sdk.rs`, and the
//! docker command of this machine drives the other tests.

mod common;
#[path = "clients/compose.rs"]
mod compose;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use common::clients::{command, file, script};
use common::{Done, Host, is_root, run, wait_until};

fn host() -> Option<Host> {
    is_root().then(|| {
        let host = Host::start();
        host.load_busybox();
        host
    })
}

/// Runs a script with the Python that has the packages.
fn python(host: &Host, name: &str) -> Option<Done> {
    let python = command(host, &file("python/bin/python")?);
    Some(script(python, name, &[]))
}

#[test]
fn python_sdk() {
    let Some(host) = host() else { return };
    if let Some(done) = python(&host, "sdk.py") {
        assert_eq!(done.ok(), "done");
    }
}

#[test]
fn testcontainers_for_python() {
    let Some(host) = host() else { return };
    let Some(interpreter) = file("python/bin/python") else {
        return;
    };
    let mut python = command(&host, &interpreter);
    // Their reaper is an image of its own, which wants a network.
    python.env("TESTCONTAINERS_RYUK_DISABLED", "true");
    assert_eq!(script(python, "containers.py", &[]).ok(), "done");
}

#[test]
fn dockerode() {
    let Some(host) = host() else { return };
    let (Some(node), Some(modules)) = (file("python/bin/node"), file("node/node_modules")) else {
        return;
    };
    let mut node = command(&host, &node);
    node.env("NODE_PATH", modules);
    assert_eq!(script(node, "dockerode.js", &[]).ok(), "done");
}

/// The docker command of Debian 12, which speaks version 1.41, and that of Debian 13.
#[test]
fn docker_commands() {
    let Some(host) = host() else { return };
    for (client, version) in [("docker-former", "1.41"), ("docker", "1.45")] {
        if let Some(program) = file(&format!("{client}/usr/bin/docker")) {
            Cli {
                host: &host,
                program,
            }
            .life(version);
        }
    }
}

struct Cli<'a> {
    host: &'a Host,
    program: PathBuf,
}

impl Cli<'_> {
    #[track_caller]
    fn run(&self, arguments: &[&str], input: &[u8]) -> Done {
        run(command(self.host, &self.program).args(arguments), input)
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments, b"").ok()
    }

    fn life(&self, version: &str) {
        let negotiated = self.ok(&["version", "-f", "{{.Client.APIVersion}}"]);
        assert_eq!(negotiated, version);
        assert!(self.ok(&["info"]).contains("Server Version:"));
        let alone = "--network=none";
        let echoed = self.run(&["run", "--rm", "-i", alone, "busybox", "cat"], b"words\n");
        assert_eq!(echoed.ok(), "words");
        let failed = self.run(
            &["run", "--rm", alone, "busybox", "sh", "-c", "exit 9"],
            b"",
        );
        assert_eq!(failed.code, 9);

        let endless = "echo up; while :; do sleep 1; done";
        let labels = ["--label=part=one", "--stop-signal=KILL", "-eCOLOUR=blue"];
        let head = [&["run", "-d", "--name=box", alone], &labels[..]].concat();
        let id = self.ok(&[&head[..], &["busybox", "sh", "-c", endless]].concat());
        let listed = self.ok(&[
            "ps",
            "--no-trunc",
            "--filter=label=part=one",
            "--format={{.ID}} {{.State}}",
        ]);
        assert_eq!(listed, format!("{id} running"));
        assert_eq!(
            self.ok(&["exec", "box", "sh", "-c", "echo $COLOUR"]),
            "blue"
        );
        assert_eq!(self.run(&["exec", "-i", "box", "cat"], b"in").ok(), "in");
        assert_eq!(
            self.run(&["exec", "box", "sh", "-c", "exit 4"], b"").code,
            4
        );
        assert_eq!(self.ok(&["logs", "--tail=1", "box"]), "up");
        assert!(self.ok(&["top", "box"]).contains("PID"));
        self.ok(&["pause", "box"]);
        self.ok(&["unpause", "box"]);
        self.ok(&["rename", "box", "case"]);
        self.ok(&["restart", "case"]);
        self.ok(&["update", "--restart=no", "case"]);
        self.ok(&["exec", "case", "touch", "/new"]);
        assert_eq!(self.ok(&["diff", "case"]), "A /new");
        let made = self.ok(&["commit", "case", "made:1"]);
        assert!(made.starts_with("sha256:"), "{made}");
        self.files_and_volumes(alone);
        self.ok(&["stop", "case"]);
        assert_eq!(self.ok(&["wait", "case"]), "137");
        self.ok(&["start", "case"]);
        self.ok(&["rm", "-f", "case"]);
        self.ok(&["rmi", "made:1"]);
        // The command sends whole seconds.
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let until = format!("--until={}", until.as_secs() + 1);
        let events = self.ok(&[
            "events",
            "--since=0",
            &until,
            "--filter=container=case",
            "--format={{.Action}}",
        ]);
        assert!(events.contains("destroy"), "{events}");
        assert_eq!(self.ok(&["ps", "-aq"]), "");
    }
    /// Volumes, health and copies of files, beside the container `case`, which runs.
    fn files_and_volumes(&self, alone: &str) {
        assert_eq!(
            self.ok(&["volume", "create", "--label=part=two", "goods"]),
            "goods"
        );
        let mounted = ["-v", "goods:/goods", alone, "--stop-signal=KILL"];
        let check = [
            "--health-cmd=test -e /goods/item",
            "--health-interval=100ms",
        ];
        let head = [&["run", "-d", "--name=shop"], &mounted[..], &check].concat();
        self.ok(&[&head[..], &["busybox", "sleep", "1000"]].concat());
        let health = || self.ok(&["inspect", "-f", "{{.State.Health.Status}}", "shop"]);
        assert_ne!(health(), "healthy");
        let item = self.host.path().join("item");
        std::fs::write(&item, "words").unwrap();
        self.ok(&["cp", &item.display().to_string(), "shop:/goods/"]);
        wait_until("the check succeeds", || health() == "healthy");
        let archive = self.run(&["cp", "shop:/goods/item", "-"], b"");
        assert!(archive.ok().contains("words"));
        let filtered = self.ok(&["volume", "ls", "-q", "--filter=label=part=two"]);
        assert_eq!(filtered, "goods");
        let refused = self.run(&["volume", "rm", "goods"], b"");
        refused.fails_with("volume is in use");
        self.ok(&["rm", "-f", "shop"]);
        let again = [
            "run",
            "--rm",
            "-v",
            "goods:/goods:ro",
            alone,
            "busybox",
            "cat",
            "/goods/item",
        ];
        assert_eq!(self.ok(&again), "words");
        assert_eq!(self.ok(&["volume", "rm", "goods"]), "goods");
    }
}
