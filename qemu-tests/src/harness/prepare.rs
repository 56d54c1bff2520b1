//! The preparations before QEMU runs, and the first contact with it.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::arguments::{self, Plan, arguments};
use super::child::Process;
use super::error::HarnessError;
use super::firmware::Firmware;
use super::provision::{CSR_ITEM, ClientKey};
use super::qmp::Qmp;
use super::spec::{API_PORT, Boot, Disk, DiskMode, Forward, MachineSpec, Network};
use super::{disk, state};

const QEMU: &str = "qemu-system-x86_64";
/// QEMU's own messages, in the machine's directory.
const QEMU_LOG: &str = "qemu.log";
/// How long QEMU may take until its sockets exist.
pub(crate) const SOCKET_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn firmware(boot: &Boot, dir: &Path) -> Result<Option<Firmware>, HarnessError> {
    match boot {
        Boot::Direct { kernel, initrd, .. } => {
            for path in [kernel, initrd] {
                must_exist(path)?;
            }
            Ok(None)
        }
        Boot::Uefi => {
            let firmware = Firmware::find()?;
            let variables = dir.join(arguments::VARIABLES);
            fs::copy(&firmware.variables, &variables)
                .map_err(HarnessError::io("copy firmware variables to", &variables))?;
            Ok(Some(firmware))
        }
    }
}

fn must_exist(path: &Path) -> Result<(), HarnessError> {
    if path.exists() {
        return Ok(());
    }
    Err(HarnessError::Missing {
        object: path.display().to_string(),
        remedy: "build the image with `cargo xtask image`".to_owned(),
    })
}

/// Makes the private copies, and all paths absolute, since QEMU runs in the machine's directory.
pub(crate) fn prepare_disks(spec: &MachineSpec, dir: &Path) -> Result<Vec<Disk>, HarnessError> {
    spec.disks_before
        .iter()
        .chain(&spec.disk)
        .chain(&spec.extra_disks)
        .enumerate()
        .map(|(index, disk)| {
            must_exist(&disk.path)?;
            let mut path =
                fs::canonicalize(&disk.path).map_err(HarnessError::io("resolve", &disk.path))?;
            if disk.mode == DiskMode::Copy {
                let extension = path.extension().unwrap_or("raw".as_ref());
                let copy = dir.join(format!("disk{index}")).with_extension(extension);
                disk::copy_sparse(&path, &copy)?;
                path = copy;
            }
            Ok(Disk {
                path,
                ..disk.clone()
            })
        })
        .collect()
}

pub(crate) fn write_items(
    spec: &MachineSpec,
    key: Option<&ClientKey>,
    dir: &Path,
) -> Result<Vec<(String, String)>, HarnessError> {
    let csr = key.map(|key| (CSR_ITEM.to_owned(), key.csr_pem().as_bytes().to_vec()));
    spec.fw_cfg
        .iter()
        .cloned()
        .chain(csr)
        .enumerate()
        .map(|(index, (name, content))| {
            let file = format!("fw_cfg-{index}");
            let path = dir.join(&file);
            fs::write(&path, content).map_err(HarnessError::io("write", &path))?;
            Ok((name, file))
        })
        .collect()
}

/// Replaces every host port 0 by a free one. The ports are all held until all are chosen, so
/// that they differ; another process may take one before QEMU binds it.
pub(crate) fn choose_ports(spec: &MachineSpec) -> Result<Vec<Forward>, HarnessError> {
    let mut forwards = match spec.network {
        Network::User => spec.forwards.clone(),
        Network::Silent | Network::None => return Ok(Vec::new()),
    };
    if !forwards.iter().any(|forward| forward.guest == API_PORT) {
        forwards.push(Forward {
            host: 0,
            guest: API_PORT,
        });
    }
    let mut held = Vec::new();
    for forward in forwards.iter_mut().filter(|forward| forward.host == 0) {
        let bound = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
        let (port, listener) = bound.map_err(|e| HarnessError::Command {
            command: QEMU.to_owned(),
            problem: format!("no free TCP port on 127.0.0.1: {e}"),
        })?;
        forward.host = port;
        held.push(listener);
    }
    Ok(forwards)
}

/// A socket that no process reads, and its port. The kernel drops datagrams when it is full.
pub(crate) fn hold_silence() -> Result<(Option<UdpSocket>, u16), HarnessError> {
    UdpSocket::bind(("127.0.0.1", 0))
        .and_then(|socket| Ok((socket.local_addr()?.port(), socket)))
        .map(|(port, socket)| (Some(socket), port))
        .map_err(|e| HarnessError::Command {
            command: QEMU.to_owned(),
            problem: format!("no free UDP port on 127.0.0.1: {e}"),
        })
}

pub(crate) fn command(
    spec: &MachineSpec,
    plan: &Plan,
    dir: &Path,
) -> Result<Command, HarnessError> {
    let log = dir.join(QEMU_LOG);
    let file = File::create(&log).map_err(HarnessError::io("create", &log))?;
    let errors = file
        .try_clone()
        .map_err(HarnessError::io("clone handle of", &log))?;
    let mut command = Command::new(QEMU);
    command
        .args(arguments(spec, plan))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        // An interrupt from the terminal must reach only this program, which then powers the
        // machine off.
        .process_group(0);
    if !spec.outlives {
        keelson_sys::child::die_with_parent(&mut command);
    }
    Ok(command)
}

pub(crate) fn cannot_start(error: std::io::Error) -> HarnessError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return HarnessError::Missing {
            object: QEMU.to_owned(),
            remedy: "install the package qemu-system-x86".to_owned(),
        };
    }
    HarnessError::Command {
        command: QEMU.to_owned(),
        problem: format!("cannot be started: {error}"),
    }
}

/// QEMU's own messages, except the one that it waits for the harness.
pub(crate) fn qemu_messages(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join(QEMU_LOG)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.contains("waiting for connection on"))
        .fold(String::new(), |all, line| format!("{all}{line}\n"))
}

/// Connects to a socket in `dir`, through a descriptor of the directory, because the whole path may
/// be too long for a socket address.
pub(crate) fn connect_now(dir: &Path, name: &str) -> Result<UnixStream, HarnessError> {
    state::connect(&dir.join(name)).map_err(HarnessError::io("connect to", &dir.join(name)))
}

/// Connects to the console, and waits until QEMU has processed its command line: the monitor
/// answers only then. The error says how QEMU ended instead.
pub(crate) fn establish(dir: &Path, process: &Process) -> Result<UnixStream, String> {
    let console = connect(dir, arguments::CONSOLE_SOCKET, process)?;
    let monitor = connect(dir, arguments::QMP_SOCKET, process)?;
    match Qmp::new(monitor) {
        Ok(_) => Ok(console),
        Err(error) => Err(process
            .wait(Duration::from_secs(5))
            .map_or_else(|| error.to_string(), |(status, _)| status.to_string())),
    }
}

/// Connects as soon as QEMU listens. The error says how QEMU ended instead.
fn connect(dir: &Path, name: &str, process: &Process) -> Result<UnixStream, String> {
    let deadline = Instant::now() + SOCKET_LIMIT;
    loop {
        if let Ok(stream) = state::connect(&dir.join(name)) {
            return Ok(stream);
        }
        // There is no event when QEMU listens, but one when it ends.
        if let Some((status, _)) = process.wait(Duration::from_millis(5)) {
            return Err(status.to_string());
        }
        if Instant::now() >= deadline {
            return Err(format!("no socket {name}"));
        }
    }
}
