//! A service manager learns that a container's program is ready.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use common::bundle::Bundle;
use common::can_run;
use serde_json::json;

/// A service manager's socket, and the messages that a command sends to it.
struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("manager")).unwrap();
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        Self { directory, socket }
    }

    fn calls(&self, mut command: Command) -> Output {
        let socket = self.directory.path().join("manager");
        command.env("NOTIFY_SOCKET", socket).output().unwrap()
    }

    fn is_told(&self) -> String {
        let mut buffer = [0; 100];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

/// Sends the same as sd_notify(3). The program is this test itself, because busybox can't send a
/// datagram to a socket in the file system.
const SAY: &str = "SAY_TO_NOTIFY_SOCKET";

#[test]
fn sends_the_given_message() {
    let Ok(words) = std::env::var(SAY) else {
        return;
    };
    let socket = UnixDatagram::unbound().unwrap();
    let place = std::env::var("NOTIFY_SOCKET").unwrap();
    for word in words.split(',') {
        socket.send_to(word.as_bytes(), &place).unwrap();
    }
}

/// A bundle with this test as its program.
fn talker(words: &str) -> Bundle {
    let script = "/talker --exact sends_the_given_message >/dev/null && sleep 1000";
    Bundle::new(&["sh", "-c", script], |config| {
        let own = std::env::current_exe().unwrap();
        config["process"]["env"]
            .as_array_mut()
            .unwrap()
            .push(json!(format!("{SAY}={words}")));
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/talker", "source": own, "options": ["bind", "ro"]}),
            json!({"destination": "/lib64", "source": "/lib64", "options": ["rbind", "ro"]}),
            json!({"destination": "/lib", "source": "/lib", "options": ["rbind", "ro"]}),
        ]);
    })
}

#[test]
fn a_service_manager_is_told_when_the_program_is_ready() {
    if !can_run() {
        return;
    }
    let bundle = talker("STATUS=begun,STOPPING=1,X=1\nREADY=1");
    let manager = Manager::new();
    let out = std::fs::File::create(bundle.directory.path().join("out")).unwrap();
    let mut create = bundle.command(&["create", "--pid-file", "pid", &bundle.id]);
    create.stdout(out);
    let created = create
        .env("NOTIFY_SOCKET", manager.directory.path().join("manager"))
        .status()
        .unwrap();
    assert!(created.success());
    let started = manager.calls(bundle.command(&["start", &bundle.id]));
    assert!(started.status.success(), "{started:?}");
    assert_eq!(manager.is_told(), "READY=1");
    let pid = std::fs::read_to_string(bundle.directory.path().join("pid")).unwrap();
    assert_eq!(manager.is_told(), format!("MAINPID={pid}"));
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_gone();
}

#[test]
fn a_foreground_passes_readiness_on_beside_its_work() {
    if !can_run() {
        return;
    }
    let bundle = talker("READY=1");
    let manager = Manager::new();
    let mut child = bundle
        .command(&["run", &bundle.id])
        .env("NOTIFY_SOCKET", manager.directory.path().join("manager"))
        .spawn()
        .unwrap();
    assert_eq!(manager.is_told(), "READY=1");
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 9]).is_err());
    bundle.assert_gone();
}

#[test]
fn a_container_survives_the_end_of_its_service_manager() {
    if !can_run() {
        return;
    }
    let bundle = talker("READY=1");
    let mut child = bundle
        .command(&["run", &bundle.id])
        .env("NOTIFY_SOCKET", bundle.directory.path().join("nobody"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    errors.read_line(&mut said).unwrap();
    assert!(said.contains("NOTIFY_SOCKET"), "{said}");
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    bundle.assert_gone();
}
