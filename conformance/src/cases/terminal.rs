//! Terminals of containers and of additional processes.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::command::{self, eventually};
use crate::lab::Container;
use crate::lab::Lab;

const PROCESS: &str = "config.md#process";
const CONSOLE: &str = "runc create --console-socket";

/// A terminal's master end that a runtime sent, and the text that was read from it.
struct Terminal {
    master: File,
    seen: String,
}

/// Receives one descriptor over a socket, and the text with it.
pub(super) fn take_descriptor(listener: &UnixListener) -> Result<(String, OwnedFd)> {
    listener.set_nonblocking(true)?;
    let mut socket = None;
    eventually("a connection to the socket", || {
        socket = listener.accept().ok();
        Ok(socket.is_some())
    })?;
    let (socket, _) = socket.context("a connection")?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(command::deadline()))?;
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        &socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(list) => Some(list),
            _ => None,
        })
        .flatten()
        .collect();
    ensure!(
        descriptors.len() == 1,
        "{} descriptors arrived",
        descriptors.len()
    );
    bytes.truncate(received.bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((text, descriptors.pop().context("a descriptor")?))
}

impl Terminal {
    /// Receives one descriptor on a console socket.
    fn receive(listener: &UnixListener) -> Result<Self> {
        let (_, master) = take_descriptor(listener)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self {
            master: master.into(),
            seen: String::new(),
        })
    }

    /// Reads until a text has arrived.
    fn says(&mut self, text: &str) -> Result<()> {
        let result = eventually(text, || {
            let mut bytes = [0; 4096];
            // An error means the end, or that nothing has arrived yet.
            if let Ok(count) = self.master.read(&mut bytes) {
                self.seen.push_str(&String::from_utf8_lossy(
                    bytes.get(..count).unwrap_or_default(),
                ));
            }
            Ok(self.seen.contains(text))
        });
        result.with_context(|| format!("on the terminal: {:?}", self.seen))
    }
}

/// Creates and starts a container with a terminal.
fn start<'a>(
    lab: &'a Lab,
    script: &str,
    edit: impl FnOnce(&mut Value),
) -> Result<(Container<'a>, Terminal)> {
    lab.write_config(|config| {
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["terminal"] = json!(true);
        edit(config);
    })?;
    let path = lab.path("tty.sock");
    let listener = UnixListener::bind(&path)?;
    let id = lab.next_id();
    lab.call(&["create", "--console-socket", &path.to_string_lossy(), &id])?
        .output()
        .context("create")?;
    let terminal = Terminal::receive(&listener)?;
    let container = Container { lab, id };
    container.start()?;
    Ok((container, terminal))
}

pub(super) const CASES: &[Case] = &[
    must(
        "config.process.terminal",
        PROCESS,
        "With terminal, the standard streams are a terminal.",
        |lab| {
            let (_container, mut terminal) = start(
                lab,
                "for f in 0 1 2; do test -t $f && echo stream $f; done; sleep 1000",
                |_| {},
            )?;
            for stream in ["stream 0", "stream 1", "stream 2"] {
                terminal.says(stream)?;
            }
            Ok(())
        },
    ),
    must(
        "config.process.terminal-in-container",
        PROCESS,
        "The terminal is of the container's devpts: its name is known inside.",
        |lab| {
            let (_container, mut terminal) =
                start(lab, "tty; stat -c %t $(tty); sleep 1000", |_| {})?;
            terminal.says("/dev/pts/0")?;
            terminal.says("88")
        },
    ),
    interface(
        "cli.create.console-socket",
        CONSOLE,
        "The terminal's master end is sent to the console socket and carries both ways.",
        |lab| {
            let (_container, mut terminal) =
                start(lab, "read line; echo got $line; sleep 1000", |_| {})?;
            terminal.master.write_all(b"typed\n")?;
            terminal.says("got typed")
        },
    ),
    must(
        "config.process.terminal-controlling",
        PROCESS,
        "The terminal is the controlling one: typed signals arrive.",
        |lab| {
            let (_container, mut terminal) = start(
                lab,
                "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.02; done",
                |_| {},
            )?;
            terminal.says("ready")?;
            terminal.master.write_all(b"\x03")?;
            terminal.says("interrupted")
        },
    ),
    must(
        "config.process.console-size",
        PROCESS,
        "consoleSize is the terminal's size.",
        |lab| {
            let (_container, mut terminal) = start(lab, "stty size; sleep 1000", |config| {
                config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
            })?;
            terminal.says("33 77")
        },
    ),
    must(
        "linux.devices.console",
        "config-linux.md#default-devices",
        "With terminal, /dev/console is the terminal.",
        |lab| {
            let (_container, mut terminal) =
                start(lab, "echo through > /dev/console; sleep 1000", |_| {})?;
            terminal.says("through")
        },
    ),
    must(
        "config.process.terminal-owner",
        PROCESS,
        "The terminal belongs to the process's user.",
        |lab| {
            let (_container, mut terminal) = start(
                lab,
                "echo owner $(stat -c %u $(tty)); sleep 1000",
                |config| {
                    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                },
            )?;
            terminal.says("owner 1000")
        },
    ),
    interface(
        "cli.create.terminal-without-socket",
        CONSOLE,
        "create of a container with a terminal needs a console socket.",
        |lab| {
            lab.write_config(|config| config["process"]["terminal"] = json!(true))?;
            lab.call(&["create", &lab.next_id()])?.failure().map(drop)
        },
    ),
    interface(
        "cli.create.console-socket-without-terminal",
        CONSOLE,
        "A console socket without a terminal is refused.",
        |lab| {
            lab.write_config(|_| {})?;
            let path = lab.path("tty.sock");
            let _listener = UnixListener::bind(&path)?;
            lab.call(&[
                "create",
                "--console-socket",
                &path.to_string_lossy(),
                &lab.next_id(),
            ])?
            .failure()
            .map(drop)
        },
    ),
    interface(
        "cli.create.console-socket-missing",
        CONSOLE,
        "A console socket where nobody listens is an error.",
        |lab| {
            lab.write_config(|config| config["process"]["terminal"] = json!(true))?;
            lab.call(&[
                "create",
                "--console-socket",
                &lab.path("nobody").to_string_lossy(),
                &lab.next_id(),
            ])?
            .failure()
            .map(drop)
        },
    ),
    interface(
        "cli.exec.tty",
        "runc exec --tty",
        "A further process gets a terminal of its own.",
        |lab| {
            let container = lab.idle()?;
            let path = lab.path("exec.sock");
            let listener = UnixListener::bind(&path)?;
            let name = path.to_string_lossy();
            container
                .exec(
                    &["--tty", "--detach", "--console-socket", &name],
                    &["sh", "-c", "tty; test -t 0 && echo terminal; sleep 1000"],
                )?
                .output()?;
            let mut terminal = Terminal::receive(&listener)?;
            terminal.says("/dev/pts/")?;
            terminal.says("terminal")
        },
    ),
    interface(
        "cli.exec.tty-controlling",
        "runc exec --tty",
        "The terminal of a further process is its controlling one.",
        |lab| {
            let container = lab.idle()?;
            let path = lab.path("exec.sock");
            let listener = UnixListener::bind(&path)?;
            let name = path.to_string_lossy();
            container
                .exec(
                    &["-t", "-d", "--console-socket", &name],
                    &[
                        "sh",
                        "-c",
                        "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.02; done",
                    ],
                )?
                .output()?;
            let mut terminal = Terminal::receive(&listener)?;
            terminal.says("ready")?;
            terminal.master.write_all(b"\x03")?;
            terminal.says("interrupted")
        },
    ),
    interface(
        "cli.run.terminal-of-caller",
        "runc run",
        "run in a terminal gives the container's terminal to the caller's.",
        |lab| {
            lab.write_config(|config| {
                config["process"]["args"] = json!(["sh", "-c", "test -t 0 && echo inside $(tty)"]);
                config["process"]["terminal"] = json!(true);
            })?;
            // script(1) would need to be installed: a shell in a new session takes the terminal.
            let master = rustix::pty::openpt(
                rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
            )?;
            rustix::pty::grantpt(&master)?;
            rustix::pty::unlockpt(&master)?;
            let name = rustix::pty::ptsname(&master, Vec::new())?.into_string()?;
            let slave = File::options().read(true).write(true).open(&name)?;
            let runtime = lab.command(&["run", &lab.next_id()])?;
            let mut shell = command::quiet("setsid");
            shell
                .arg("--ctty")
                .arg(runtime.get_program())
                .args(runtime.get_args())
                .current_dir(lab.bundle())
                .stdin(slave.try_clone()?)
                .stdout(slave.try_clone()?)
                .stderr(slave);
            let mut child = shell.spawn()?;
            drop(shell);
            rustix::io::ioctl_fionbio(&master, true)?;
            let mut terminal = Terminal {
                master: master.into(),
                seen: String::new(),
            };
            let said = terminal.says("inside /dev/pts/0");
            let status = command::wait(&mut child)?;
            said?;
            ensure!(status.success(), "{status}");
            Ok(())
        },
    ),
    must(
        "linux.devices.console-not-a-link",
        "config-linux.md#default-devices",
        "A /dev/console that is a link of the image leads to no other file (CVE-2025-52565).",
        |lab| {
            let victim = lab.rootfs().join("etc/victim");
            std::fs::write(&victim, "untouched")?;
            std::os::unix::fs::symlink("/etc/victim", lab.rootfs().join("dev/console"))?;
            // To refuse it would be correct as well.
            let started = start(
                lab,
                "stat -c %F /etc/victim; echo done; sleep 1000",
                |config| {
                    if let Some(mounts) = config["mounts"].as_array_mut() {
                        mounts.retain(|mount| mount["destination"] != "/dev");
                    }
                },
            );
            if let Ok((_container, mut terminal)) = started {
                terminal.says("done")?;
                ensure!(
                    terminal.seen.contains("regular file"),
                    "the terminal is bound over another file: {}",
                    terminal.seen
                );
            }
            Ok(())
        },
    ),
];
