//! Further processes in containers, through the `docker` command and a terminal.

mod common;
#[path = "exec/survival.rs"]
mod survival;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use common::{Host, is_root, wait_until};

/// A host with a container `box` that does nothing but run.
fn host() -> Host {
    let host = Host::start();
    host.load_busybox();
    host.docker(&[
        "run",
        "--stop-signal",
        "KILL",
        "-d",
        "--name",
        "box",
        "-e",
        "OWN=mine",
        "-w",
        "/tmp",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    host
}

#[test]
fn exec_passes_output_input_and_exit_codes() {
    if !is_root() {
        return;
    }
    let host = host();
    let done = host.docker(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    let piped = host.docker_with(&["exec", "-i", "box", "cat"], b"hello\n");
    assert_eq!(piped.ok(), "hello");
    let big: Vec<u8> = (0..1_000_000_u32)
        .flat_map(|n| (n as u16).to_le_bytes())
        .collect();
    let sum = host.docker_with(&["exec", "-i", "box", "wc", "-c"], &big);
    assert_eq!(sum.ok(), big.len().to_string());
    let done = host.docker(&["exec", "box", "seq", "1", "200000"]);
    let wanted: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(done.code, 0);
    assert!(done.stdout == wanted, "{} bytes", done.stdout.len());

    let missing = host.docker(&["exec", "box", "no-such-program"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    assert!(
        missing
            .stdout
            .contains("executable file not found in $PATH"),
        "{}",
        missing.stdout
    );
    let directory = host.docker(&["exec", "box", "/etc"]);
    assert_eq!(directory.code, 126, "{}", directory.stdout);
    // Nothing of it is the container's output.
    assert_eq!(host.docker(&["logs", "box"]).ok(), "");
}

#[test]
fn exec_takes_user_directory_environment_and_privileges() {
    if !is_root() {
        return;
    }
    let host = host();
    let script = "id -u; id -g; pwd; echo $OWN $ADDED $HOME; grep CapEff /proc/self/status";
    let plain = host.docker(&["exec", "box", "sh", "-c", script]).ok();
    assert_eq!(plain, "0\n0\n/tmp\nmine /root\nCapEff:\t00000000a80425fb");
    let changed = host
        .docker(&[
            "exec",
            "-u",
            "12:13",
            "-w",
            "/",
            "-e",
            "ADDED=more",
            "-e",
            "OWN=other",
            "box",
            "sh",
            "-c",
            script,
        ])
        .ok();
    assert_eq!(
        changed,
        "12\n13\n/\nother more /\nCapEff:\t0000000000000000"
    );
    let privileged = host
        .docker(&[
            "exec",
            "--privileged",
            "box",
            "grep",
            "CapEff",
            "/proc/self/status",
        ])
        .ok();
    assert!(privileged.starts_with("CapEff:\t000001f"), "{privileged}");
    host.docker(&[
        "exec",
        "box",
        "sh",
        "-c",
        "echo new:x:55:66::/home/new:/bin/sh >> /etc/passwd",
    ])
    .ok();
    let named = host.docker(&[
        "exec",
        "-u",
        "new",
        "box",
        "sh",
        "-c",
        "id -u; id -g; echo $HOME",
    ]);
    assert_eq!(named.ok(), "55\n66\n/home/new");
    host.docker(&["exec", "-u", "nobody-here", "box", "true"])
        .fails_with("unable to find user nobody-here");
}

#[test]
fn exec_needs_a_running_container() {
    if !is_root() {
        return;
    }
    let host = host();
    host.docker(&["exec", "nobody", "true"])
        .fails_with("No such container: nobody");
    host.docker(&["pause", "box"]).ok();
    host.docker(&["exec", "box", "true"])
        .fails_with("is paused, unpause the container before exec");
    host.docker(&["unpause", "box"]).ok();
    host.docker(&["exec", "box", "true"]).ok();
    host.docker(&["kill", "box"]).ok();
    host.docker(&["exec", "box", "true"])
        .fails_with("is not running");
    let (status, body) = host.get("/exec/unknown/json");
    assert_eq!(status, 404);
    assert!(body.contains("No such exec instance: unknown"), "{body}");
}

#[test]
fn detached_ones_run_on_are_listed_and_announced() {
    if !is_root() {
        return;
    }
    let host = host();
    host.docker(&["exec", "-d", "box", "sh", "-c", "touch /made; sleep 1000"])
        .ok();
    wait_until("the detached process has run", || {
        host.docker(&["exec", "box", "ls", "/made"]).code == 0
    });
    let ids = host
        .docker(&["inspect", "-f", "{{range .ExecIDs}}{{.}} {{end}}", "box"])
        .ok();
    assert_eq!(ids.len(), 64, "{ids}");
    let (status, body) = host.get(&format!("/exec/{ids}/json"));
    assert_eq!(status, 200);
    for wanted in [
        "\"Running\":true",
        "\"ExitCode\":null",
        "\"entrypoint\":\"sh\"",
    ] {
        assert!(body.contains(wanted), "{wanted}: {body}");
    }
    let again = "{\"Detach\":true}";
    let (status, body) = host.send("POST", &format!("/exec/{ids}/start"), again);
    assert_eq!(status, 409);
    assert!(body.contains("is already running"), "{body}");
    host.docker(&["kill", "box"]).ok();
    wait_until("the exec has ended with its container", || {
        let (_, body) = host.get(&format!("/exec/{ids}/json"));
        // Its container is there, so it is known.
        body.contains("\"ExitCode\":137")
    });
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let (_, events) = host.get(&format!("/events?since=0&until={until}"));
    for wanted in [
        "\"Action\":\"exec_create: sh -c touch /made; sleep 1000\"",
        "\"Action\":\"exec_start: ls /made\"",
        "\"Action\":\"exec_die\"",
        "\"exitCode\":\"137\"",
        &format!("\"execID\":\"{ids}\""),
    ] {
        assert!(events.contains(wanted), "{wanted}: {events}");
    }
    host.docker(&["rm", "box"]).ok();
    assert_eq!(host.get(&format!("/exec/{ids}/json")).0, 404);
}

/// A docker command on a terminal of its own.
struct Terminal {
    child: Child,
    master: std::fs::File,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let slave: OwnedFd = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        drop(command);
        Self {
            child: child.unwrap(),
            master: master.into(),
            seen: String::new(),
        }
    }

    /// Reads until `text` has come.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            match self.master.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    self.seen
                        .push_str(&String::from_utf8_lossy(&buffer[..length]));
                }
                other => panic!("{text:?} did not come ({other:?}): {:?}", self.seen),
            }
        }
    }

    fn send(&mut self, text: &[u8]) {
        self.master.write_all(text).unwrap();
    }

    #[track_caller]
    fn end(mut self) -> i32 {
        let mut code = None;
        wait_until("the command has ended", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap()
    }
}

#[test]
fn exec_on_a_terminal_is_interactive_and_can_be_left() {
    if !is_root() {
        return;
    }
    let host = host();
    let script = "tty; read line; echo got:$line; exit 6";
    let mut terminal =
        Terminal::start(host.docker_command(&["exec", "-it", "box", "sh", "-c", script]));
    terminal.expect("/dev/pts/0\r\n");
    terminal.send(b"typed\r");
    terminal.expect("got:typed\r\n");
    assert_eq!(terminal.end(), 6);

    // Left by the key sequence, the process runs on.
    let script = "echo ready; sleep 1001";
    let mut terminal = Terminal::start(host.docker_command(&[
        "exec",
        "-it",
        "--detach-keys",
        "ctrl-x,x",
        "box",
        "sh",
        "-c",
        script,
    ]));
    terminal.expect("ready\r\n");
    terminal.send(&[24, b'x']);
    terminal.expect("read escape sequence");
    terminal.end();
    assert!(
        host.docker(&["exec", "box", "ps"])
            .ok()
            .contains("sleep 1001")
    );
}

/// Some clients read the head of the answer through a buffer and throw away what else is in it.
#[test]
fn output_never_comes_along_with_the_head() {
    if !is_root() {
        return;
    }
    let host = host();
    let send = |path: &str, body: &str| {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{upgrade}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut piece = vec![0; 8192];
        let length = stream.read(&mut piece).unwrap();
        (
            stream,
            String::from_utf8_lossy(&piece[..length]).into_owned(),
        )
    };
    for _ in 0..20 {
        let wanted = r#"{"Cmd":["echo","hi"],"AttachStdout":true,"Tty":true}"#;
        let (_, made) = send("/containers/box/exec", wanted);
        let id = made.split("\"Id\":\"").nth(1).unwrap().get(..64).unwrap();
        let start = r#"{"Detach":false,"Tty":true}"#;
        let (mut stream, head) = send(&format!("/exec/{id}/start"), start);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let mut output = String::new();
        stream.read_to_string(&mut output).unwrap();
        assert_eq!(output, "hi\r\n");
    }
}
