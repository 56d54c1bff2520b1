//! Device nodes and the usual links in the container's /dev, and its console.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use super::{mounts, paths};
use crate::failure::{Failure, Step};
use crate::spec::Device;

/// Name, major and minor number of the character devices that every container has.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links in /dev.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// How device nodes come into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// By mknod(2).
    Made,
    /// As mounts of the host's nodes of the same path: in a user namespace nodes can't be made.
    Bound,
}

/// Fills a fresh /dev with the default devices and links.
pub(crate) fn fill(folder: &OwnedFd, nodes: Nodes) -> Result<(), Failure> {
    for (name, major, minor) in DEFAULT {
        let numbers = (*major, *minor);
        let step = || format!("make device /dev/{name}");
        match nodes {
            Nodes::Made => {
                make_node(folder, name, FileType::CharacterDevice, 0o666, numbers).step(step)?
            }
            Nodes::Bound => {
                let kind = FileType::CharacterDevice;
                bind_node(folder, name, &format!("/dev/{name}"), kind, numbers).map_err(
                    |failure| Failure {
                        message: format!("{}: {}", step(), failure.message),
                        ..failure
                    },
                )?;
            }
        }
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(*target, folder, *name) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
        .step(|| format!("make link /dev/{name}"))?;
    }
    Ok(())
}

fn make_node(
    folder: impl AsFd,
    name: &str,
    kind: FileType,
    mode: u32,
    (major, minor): (u32, u32),
) -> Result<(), Errno> {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(folder, name, kind, Mode::from_raw_mode(mode), device)
}

/// Shows a node of the host's, which must be the device that is meant.
fn bind_node(
    folder: impl AsFd,
    name: &str,
    host: &str,
    kind: FileType,
    numbers: (u32, u32),
) -> Result<(), Failure> {
    let step = || format!("open {host} of the host");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::open(host, flags, Mode::empty()).step(step)?;
    let status = rustix::fs::fstat(&node).step(step)?;
    if !is_device(&status, kind, numbers) {
        return Err(Failure::invalid(format!(
            "{host} of the host is another device than {}:{}",
            numbers.0, numbers.1
        )));
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY;
    let step = || "make a file to mount on";
    let target = paths::openat2(
        &folder,
        name,
        flags,
        Mode::from_raw_mode(0o666),
        ResolveFlags::BENEATH,
    )
    .step(step)?;
    let tree = mounts::copy_of(&node).step(|| format!("bind {host} of the host"))?;
    mounts::attach(&tree, &target).step(|| format!("bind {host} of the host"))
}

fn is_device(status: &rustix::fs::Stat, kind: FileType, (major, minor): (u32, u32)) -> bool {
    FileType::from_raw_mode(status.st_mode) == kind
        && (kind == FileType::Fifo || status.st_rdev == rustix::fs::makedev(major, minor))
}

/// Makes the devices of config.json.
pub(crate) fn make(root: BorrowedFd<'_>, devices: &[Device], nodes: Nodes) -> Result<(), Failure> {
    for (index, device) in devices.iter().enumerate() {
        let refused = |member: &str, reason: String| {
            Failure::invalid(format!("linux.devices[{index}].{member}: {reason}"))
        };
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => return Err(refused("type", format!("{other:?} is not b, c, u or p"))),
        };
        let number = |member, value: i64| {
            u32::try_from(value)
                .map_err(|_| refused(member, format!("{value} is not a device number")))
        };
        let numbers = (
            number("major", device.major)?,
            number("minor", device.minor)?,
        );
        let mode = device.file_mode.unwrap_or(0o666) & 0o7777;
        let (folder, name) = paths::split(root, &device.path)?;
        let step = || format!("make device {}", device.path);
        let exists = || rustix::fs::statat(&folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if nodes == Nodes::Bound && kind != FileType::Fifo && exists().is_err() {
            bind_node(&folder, name, &device.path, kind, numbers)
                .map_err(|failure| refused("path", failure.message))?;
            continue;
        }
        match make_node(&folder, name, kind, mode, numbers) {
            // One of the default devices, or made by the image: it must be the one asked for.
            Err(Errno::EXIST) => {
                if !is_device(&exists().step(step)?, kind, numbers) {
                    return Err(refused(
                        "path",
                        format!("{} exists and is something else", device.path),
                    ));
                }
            }
            other => other.step(step)?,
        }
        if device.uid != 0 || device.gid != 0 {
            rustix::fs::chownat(
                &folder,
                name,
                Some(rustix::fs::Uid::from_raw(device.uid)),
                Some(rustix::fs::Gid::from_raw(device.gid)),
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .step(step)?;
        }
    }
    Ok(())
}

/// The two ends of the container's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// For the shim.
    pub(crate) master: OwnedFd,
    /// For the process.
    pub(crate) slave: OwnedFd,
}

/// The place of the console: never behind a link, which an image could lay to anywhere in its root
/// file system and to procfs (CVE-2025-52565).
fn console(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    const NAME: &str = "console";
    let step = || "open /dev/console in the container";
    let folder = paths::make_folder(root, "/dev")?;
    let open = |flags, mode| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        paths::openat2(&folder, NAME, flags | OFlags::NOFOLLOW, mode, resolve)
    };
    let place = match open(OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            open(flags, Mode::from_raw_mode(0o600)).step(|| "make /dev/console in the container")?
        }
        other => other.step(step)?,
    };
    let status = rustix::fs::fstat(&place).step(step)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Symlink {
        return Err(Failure::invalid(
            "/dev/console of the container is a symbolic link",
        ));
    }
    mounts::must_not_be_procfs(&place, "/dev/console")?;
    Ok(place)
}

/// Makes a terminal in the container's own terminal file system (or the host's when the container
/// has none) and shows it as /dev/console.
pub(crate) fn make_terminal(
    root: BorrowedFd<'_>,
    terminals: Option<&OwnedFd>,
    owner: u32,
) -> Result<Terminal, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = match terminals {
        Some(folder) => paths::openat2(
            folder,
            "ptmx",
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        ),
        None => rustix::fs::open("/dev/ptmx", flags | OFlags::CLOEXEC, Mode::empty()),
    }
    .step(|| "open a terminal")?;
    rustix::pty::unlockpt(&master).step(|| "unlock the terminal")?;
    // By descriptor: a path to the slave could lead elsewhere by now.
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .step(|| "open the terminal's other end")?;
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(owner)), None)
        .step(|| "give the terminal to the user")?;
    let tree = mounts::copy_of(&slave).step(|| "bind the terminal to /dev/console")?;
    let target = console(root).map_err(|failure| Failure {
        message: format!("process.terminal: {}", failure.message),
        ..failure
    })?;
    mounts::attach(&tree, &target).step(|| "bind the terminal to /dev/console")?;
    Ok(Terminal { master, slave })
}
