//! Containers and additional processes with a terminal in the foreground.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use common::bundle::Bundle;
use common::{can_run, eventually};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::json;

fn bundle(args: &[&str], terminal: bool) -> Bundle {
    Bundle::new(args, |config| {
        config["process"]["terminal"] = json!(terminal)
    })
}

/// A user's terminal with a program in it.
struct Screen {
    master: File,
    slave: OwnedFd,
    seen: String,
}

impl Screen {
    fn new() -> Self {
        let size = Winsize {
            ws_row: 33,
            ws_col: 77,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        for end in [&master, &slave] {
            let flag = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
            nix::fcntl::fcntl(end, flag).unwrap();
        }
        let seen = String::new();
        Self {
            master: master.into(),
            slave,
            seen,
        }
    }

    fn start(&self, mut command: Command) -> Child {
        let end = || Stdio::from(self.slave.try_clone().unwrap());
        command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap()
    }

    /// Reads until a text appears.
    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut ready = [nix::poll::PollFd::new(
                std::os::fd::AsFd::as_fd(&self.master),
                nix::poll::PollFlags::POLLIN,
            )];
            let waited = nix::poll::poll(&mut ready, 30_000_u16).unwrap();
            assert!(waited > 0, "no {text:?} in {:?}", self.seen);
            let mut buffer = [0; 4096];
            let length = self.master.read(&mut buffer).unwrap();
            self.seen
                .push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    fn is_raw(&self) -> bool {
        let flags = tcgetattr(&self.slave).unwrap().local_flags;
        !flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }
}

#[test]
fn run_is_in_the_callers_terminal() {
    if !can_run() {
        return;
    }
    let script = "tty; stty size; read line; echo got $line; stty size; read line; exit 7";
    let bundle = bundle(&["sh", "-c", script], true);
    let mut screen = Screen::new();
    assert!(!screen.is_raw());
    let mut child = screen.start(bundle.command(&["run", &bundle.id]));
    screen.until("/dev/pts/0\r\n33 77\r\n");
    assert!(screen.is_raw());
    keelson_sys::sandbox::set_terminal_size(&screen.slave, 40, 100).unwrap();
    // The kernel signals a change of size to the terminal's own session only.
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).unwrap();
    eventually("the new size", || {
        let stty = ["exec", &bundle.id, "stty", "-F", "/dev/console", "size"];
        let output = bundle.command(&stty).output();
        output.is_ok_and(|output| output.stdout == b"40 100\n")
    });
    screen.master.write_all(b"word\r").unwrap();
    screen.until("got word\r\n40 100\r\n");
    screen.master.write_all(b"\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(!screen.is_raw(), "the terminal is as it was");
}

#[test]
fn signals_and_large_output_pass() {
    if !can_run() {
        return;
    }
    let script = "trap 'echo caught; exit 3' TERM; seq 1 20000; echo ready; \
                  while true; do sleep 0.05; done";
    let bundle = bundle(&["sh", "-c", script], true);
    let mut screen = Screen::new();
    let mut child = screen.start(bundle.command(&["run", &bundle.id]));
    screen.until("ready\r\n");
    assert!(screen.seen.contains("\r\n19999\r\n20000\r\n"));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    screen.until("caught");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn exec_has_a_terminal_and_a_cgroup() {
    if !can_run() {
        return;
    }
    let bundle = bundle(&["sleep", "1000"], false);
    let run = bundle.command(&["run", "--detach", &bundle.id]).status();
    assert!(run.unwrap().success());
    let mut screen = Screen::new();
    let exec = [
        "exec",
        "--tty",
        &bundle.id,
        "sh",
        "-c",
        "tty; stty size; exit 5",
    ];
    let mut child = screen.start(bundle.command(&exec));
    screen.until("/dev/pts/0\r\n33 77\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));

    let own = common::cgroup_of(&bundle.id);
    std::fs::create_dir(own.join("below")).unwrap();
    let exec = [
        "exec",
        "--cgroup",
        "below",
        &bundle.id,
        "cat",
        "/proc/self/cgroup",
    ];
    let output = bundle.command(&exec).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("0::/below\n"), "{text} {output:?}");
    for (path, reason) in [
        ("../x", ".."),
        ("cpu:below", "hierarchy"),
        ("missing", "missing"),
    ] {
        let exec = ["exec", "--cgroup", path, &bundle.id, "true"];
        let output = bundle.command(&exec).output().unwrap();
        assert_eq!(output.status.code(), Some(255), "{path}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.contains("--cgroup") && error.contains(reason),
            "{error}"
        );
    }
}

#[test]
fn endless_output_does_not_block_exec() {
    if !can_run() {
        return;
    }
    let bundle = bundle(&["sleep", "1000"], false);
    let run = bundle.command(&["run", "--detach", &bundle.id]).status();
    assert!(run.unwrap().success());
    let script = "trap '' HUP; cat /dev/zero & sleep 0.2; exit 3";
    let mut child = bundle
        .command(&["exec", "--tty", &bundle.id, "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Slow enough for the terminal to be full at any time.
    let mut output = child.stdout.take().unwrap();
    let (mut total, mut buffer) = (0, [0; 4096]);
    loop {
        match output.read(&mut buffer).unwrap() {
            0 => break,
            length => total += length,
        }
        assert!(total < 2 << 20, "exec goes on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_detached_container_needs_a_console_socket_for_its_terminal() {
    if !can_run() {
        return;
    }
    let bundle = bundle(&["true"], true);
    for arguments in [vec!["create"], vec!["run", "--detach"]] {
        let mut command = bundle.command(&arguments);
        let output = command.arg(&bundle.id).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("process.terminal"), "{error}");
    }
}

#[test]
fn line_ends_are_passed_on_unchanged() {
    if !can_run() {
        return;
    }
    let written = bundle(&["sh", "-c", "echo a; echo b"], true);
    let mut command = written.command(&["run"]);
    let output = command.arg(&written.id).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nb\n");

    let idle = bundle(&["sleep", "1000"], false);
    let mut command = idle.command(&["run", "--detach"]);
    command.stdout(Stdio::null());
    assert!(command.arg(&idle.id).status().unwrap().success());
    let mut command = idle.command(&["exec", "--tty"]);
    command.args([&idle.id, "sh", "-c", "echo c; echo d"]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "c\nd\n");
}

#[test]
fn the_console_socket_may_come_late() {
    if !can_run() {
        return;
    }
    let bundle = bundle(&["true"], true);
    let socket = bundle.directory.path().join("tty.sock");
    let mut command = bundle.command(&["create", "--console-socket"]);
    command.arg(&socket).arg(&bundle.id);
    let mut create = command.spawn().unwrap();
    // The container and its terminal are made before anybody listens.
    let state = bundle.directory.path().join("state").join(&bundle.id);
    eventually("the container's directory", || state.exists());
    let listener = UnixListener::bind(&socket).unwrap();
    let _connection = listener.accept().unwrap();
    assert!(create.wait().unwrap().success());
}
