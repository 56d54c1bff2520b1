//! Device nodes and the usual links in the container's /dev, and its console.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, UnmountFlags};
use rustix::pty::OpenptFlags;

use super::node::is_device;
use super::options::Attributes;
use super::{filesystem, mounts, null, paths, root, userns};
use crate::failure::{Failure, Step};
use crate::spec::{Device, IdMapping, Linux, mappings};

/// Name, major and minor number of the character devices that every container has.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("null", null::NUMBERS.0, null::NUMBERS.1),
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
#[derive(Debug)]
pub(crate) enum Nodes {
    /// By mknod(2).
    Made,
    /// As mounts, because nodes can't be made in a user namespace. The default devices are mounts
    /// of the host's nodes, through which these can't be changed. The devices of config.json are
    /// mounts of nodes that [`prepare`] has made, by position in the list.
    Bound(Vec<(usize, OwnedFd)>),
}

/// Fills a fresh /dev with the default devices and links.
pub(crate) fn fill(directory: &OwnedFd, nodes: &Nodes) -> Result<(), Failure> {
    for (name, major, minor) in DEFAULT {
        let numbers = (*major, *minor);
        let step = || format!("make device /dev/{name}");
        match nodes {
            Nodes::Made => {
                make_node(directory, name, FileType::CharacterDevice, 0o666, numbers).step(step)?
            }
            Nodes::Bound(_) => bind_node(directory, name, numbers).map_err(|failure| Failure {
                message: format!("{}: {}", step(), failure.message),
                ..failure
            })?,
        }
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(*target, directory, *name) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
        .step(|| format!("make link /dev/{name}"))?;
    }
    Ok(())
}

fn make_node(
    directory: impl AsFd,
    name: &str,
    kind: FileType,
    mode: u32,
    (major, minor): (u32, u32),
) -> Result<(), Errno> {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(mode), device)
}

/// Mounts one of the host's default nodes.
fn bind_node(directory: &OwnedFd, name: &str, numbers: (u32, u32)) -> Result<(), Failure> {
    let kind = FileType::CharacterDevice;
    // Engines bind all devices of the host into privileged containers of ordinary users.
    let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    if there.is_ok_and(|status| is_device(&status, kind, numbers)) {
        return Ok(());
    }
    let tree = host_node(&format!("/dev/{name}"), kind, numbers)?;
    attach_node(directory, name, &tree)
}

/// The mount of a node of the host. The node must be the device that is expected.
fn host_node(host: &str, kind: FileType, numbers: (u32, u32)) -> Result<OwnedFd, Failure> {
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
    null::readonly(&node).step(|| format!("bind {host} of the host"))
}

/// The devices of config.json for a runtime of an ordinary user, which can't make nodes. They are
/// the host's nodes, with their owners and modes on the host.
pub(crate) fn of_host(devices: &[Device]) -> Result<Vec<(usize, OwnedFd)>, Failure> {
    let mut nodes = read(devices)?;
    nodes.retain(|node| node.kind != FileType::Fifo);
    let trees = nodes.iter().map(|node| {
        let tree = host_node(node.path, node.kind, node.numbers);
        let tree = tree.map_err(|failure| refused(node.index, "path", &failure.message))?;
        Ok((node.index, tree))
    });
    trees.collect()
}

/// Attaches the mount of a node to a path where no file exists yet.
fn attach_node(directory: impl AsFd, name: &str, tree: &OwnedFd) -> Result<(), Failure> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY;
    let target = paths::openat2(
        &directory,
        name,
        flags,
        Mode::from_raw_mode(0o666),
        ResolveFlags::BENEATH,
    )
    .step(|| "make a file to mount on")?;
    mounts::attach(tree, &target).step(|| "bind the node")
}

/// Whether a device is the terminal multiplexer (ptmx). The container has its own, through a link
/// into its /dev/pts. Engines list the host's among all devices, but it would lead to no terminal
/// of the container.
fn is_multiplexer(device: &Device) -> bool {
    device.path == "/dev/ptmx" && (device.major, device.minor) == (Some(5), Some(2))
}

/// A device of `linux.devices`, checked.
struct Node<'a> {
    index: usize,
    path: &'a str,
    kind: FileType,
    numbers: (u32, u32),
    mode: u32,
    owner: (u32, u32),
}

/// Reads `linux.devices`, without touching the machine.
fn read(devices: &[Device]) -> Result<Vec<Node<'_>>, Failure> {
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(devices.len());
    for (index, device) in devices.iter().enumerate() {
        if is_multiplexer(device) {
            continue;
        }
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => {
                return Err(refused(
                    index,
                    "type",
                    &format!("{other:?} is not b, c, u or p"),
                ));
            }
        };
        let number = |member, value: Option<i64>| match value {
            None if kind == FileType::Fifo => Ok(0),
            None => Err(refused(index, member, "is missing")),
            Some(value) => u32::try_from(value)
                .map_err(|_| refused(index, member, &format!("{value} is not a device number"))),
        };
        let numbers = (
            number("major", device.major)?,
            number("minor", device.minor)?,
        );
        let path = device.path.trim_end_matches('/');
        if !path.starts_with('/') {
            let reason = format!("{:?} is not the absolute path of a file", device.path);
            return Err(refused(index, "path", &reason));
        }
        let same_path = |other: &&Node<'_>| other.path == path;
        if let Some(other) = nodes.iter().find(same_path)
            && (other.kind, other.numbers) != (kind, numbers)
        {
            let reason = format!("{path} is another device in linux.devices[{}]", other.index);
            return Err(refused(index, "path", &reason));
        }
        nodes.push(Node {
            index,
            path,
            kind,
            numbers,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            owner: (device.uid, device.gid),
        });
    }
    Ok(nodes)
}

/// Checks `linux.devices`.
pub(crate) fn check(devices: &[Device]) -> Result<(), Failure> {
    read(devices).map(drop)
}

fn refused(index: usize, member: &str, reason: &str) -> Failure {
    Failure::invalid(format!("linux.devices[{index}].{member}: {reason}"))
}

/// Makes the nodes of config.json outside of the user namespace that will see them, with owners as
/// that namespace maps them. The nodes lie in a file system of a mount namespace made for this
/// purpose, so the calling process must not need paths of the host any more.
pub(crate) fn prepare(linux: &Linux) -> Result<Vec<(usize, OwnedFd)>, Failure> {
    if userns::is_restricted() {
        return of_host(&linux.devices);
    }
    let mut nodes = read(&linux.devices)?;
    nodes.retain(|node| node.kind != FileType::Fifo);
    let mut trees = Vec::with_capacity(nodes.len());
    if nodes.is_empty() {
        return Ok(trees);
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .step(|| "make a mount namespace for the devices")?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).step(|| "make the host's mounts slaves")?;
    let directory = filesystem::new_filesystem("tmpfs", None, &[], Attributes::default())
        .step(|| "make a file system for the devices")?;
    root::attach(&directory, Path::new("/"))?;
    for node in nodes {
        let step = || format!("linux.devices[{}]: make device {}", node.index, node.path);
        let outside = |member, mappings: &[IdMapping], id| {
            // For a namespace that exists already, config.json need not list the mappings.
            let found = match mappings {
                [] => Some(id),
                _ => mappings::outside(mappings, id),
            };
            found.ok_or_else(|| {
                let reason = format!("{id} is not mapped in the user namespace");
                refused(node.index, member, &reason)
            })
        };
        let owner = (
            outside("uid", &linux.uid_mappings, node.owner.0)?,
            outside("gid", &linux.gid_mappings, node.owner.1)?,
        );
        let name = node.index.to_string();
        make_node(&directory, &name, node.kind, node.mode, node.numbers).step(step)?;
        own(&directory, &name, owner).step(step)?;
        // Restores the mode bits that the umask and the change of the owner cleared.
        let mode = Mode::from_raw_mode(node.mode);
        rustix::fs::chmodat(&directory, &name, mode, AtFlags::empty()).step(step)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(&directory, &name, flags).step(step)?;
        trees.push((node.index, tree));
    }
    // A mount that lies on the root directory when the container's process copies this namespace
    // could not be unmounted there.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    rustix::mount::unmount(path, UnmountFlags::DETACH)
        .step(|| "take off the file system for the devices")?;
    Ok(trees)
}

fn own(directory: impl AsFd, name: &str, (uid, gid): (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(
        directory,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Makes the devices of config.json. `fresh`: the container's own file system at /dev. Only in that
/// file system does an existing node belong to the container; elsewhere it may be the host's.
pub(crate) fn make(
    root: BorrowedFd<'_>,
    devices: &[Device],
    nodes: &Nodes,
    fresh: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let fresh = match fresh {
        Some(directory) if !devices.is_empty() => {
            Some(rustix::fs::fstat(directory).step(|| "examine /dev")?.st_dev)
        }
        _ => None,
    };
    for node in read(devices)? {
        let (directory, name) = paths::split(root, node.path)?;
        let step = || format!("make device {}", node.path);
        let exists = || rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if let Nodes::Bound(trees) = nodes
            && let Some((_, tree)) = trees.iter().find(|(index, _)| *index == node.index)
            && exists().is_err()
        {
            attach_node(&directory, name, tree)
                .map_err(|failure| refused(node.index, "path", &failure.message))?;
            continue;
        }
        match make_node(&directory, name, node.kind, node.mode, node.numbers) {
            // The node is one of the default devices, or comes from the image: it must be the
            // device that is asked for.
            Err(Errno::EXIST) => {
                let status = exists().step(step)?;
                if !is_device(&status, node.kind, node.numbers) {
                    let reason = format!("{} exists and is something else", node.path);
                    return Err(refused(node.index, "path", &reason));
                }
                if fresh != Some(status.st_dev) {
                    continue;
                }
            }
            other => other.step(step)?,
        }
        if node.owner != (0, 0) {
            own(&directory, name, node.owner).step(step)?;
        }
    }
    Ok(())
}

/// More bytes than the kernel keeps of a terminal's output that was not read yet.
pub(crate) const TERMINAL_HOLDS: usize = 256 * 1024;

/// The two ends of the container's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The shim's end.
    pub(crate) master: OwnedFd,
    /// The process's end.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// From a master end that was just opened. The other end is given to a user.
    pub(crate) fn of(master: OwnedFd, owner: u32) -> Result<Self, Failure> {
        rustix::pty::unlockpt(&master).step(|| "unlock the terminal")?;
        // Opened through the descriptor: a path to the slave could lead elsewhere by now.
        let slave = rustix::pty::ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )
        .step(|| "open the terminal's other end")?;
        rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), None)
            .step(|| "give the terminal to the user")?;
        Ok(Self { master, slave })
    }
}

/// The file to mount the console on. Links are never followed: an image could point them anywhere
/// in its root file system and into procfs (CVE-2025-52565).
fn console(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    const NAME: &str = "console";
    let step = || "open /dev/console in the container";
    let directory = paths::make_directory(root, "/dev")?;
    let open = |flags, mode| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
        paths::openat2(&directory, NAME, flags | OFlags::NOFOLLOW, mode, resolve)
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
/// has none) and mounts it at /dev/console.
pub(crate) fn make_terminal(
    root: BorrowedFd<'_>,
    terminals: Option<&OwnedFd>,
    owner: u32,
) -> Result<Terminal, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = match terminals {
        Some(directory) => paths::openat2(
            directory,
            "ptmx",
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        ),
        None => rustix::fs::open("/dev/ptmx", flags | OFlags::CLOEXEC, Mode::empty()),
    }
    .step(|| "open a terminal")?;
    let terminal = Terminal::of(master, owner)?;
    let tree = mounts::copy_of(&terminal.slave).step(|| "bind the terminal to /dev/console")?;
    let target = console(root).map_err(|failure| Failure {
        message: format!("process.terminal: {}", failure.message),
        ..failure
    })?;
    mounts::attach(&tree, &target).step(|| "bind the terminal to /dev/console")?;
    Ok(terminal)
}
