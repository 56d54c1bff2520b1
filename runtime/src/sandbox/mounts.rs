//! The mounts of config.json, by the new mount API.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use keelson_sys::mount_attr::{self, MountAttributes};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::options::{self, Attributes, Options};
use super::paths;
use crate::failure::{Failure, Step};
use crate::spec::Mount;

/// What later steps need of the mounts that were made.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// The procfs of the container, reached without passing through its file system.
    pub(crate) proc: Option<OwnedFd>,
    /// The terminals' file system at /dev/pts.
    pub(crate) terminals: Option<OwnedFd>,
    /// /dev, when it is a fresh file system to be filled with devices.
    pub(crate) devices: Option<OwnedFd>,
}

/// Makes all mounts, in order.
pub(crate) fn mount_all(root: BorrowedFd<'_>, mounts: &[Mount]) -> Result<Mounted, Failure> {
    let mut mounted = Mounted::default();
    for (index, mount) in mounts.iter().enumerate() {
        let options = options::parse(&mount.options).map_err(|unsupported| {
            Failure::unsupported(format!(
                "mounts[{index}].options: {:?} is not supported",
                unsupported.0
            ))
        })?;
        let kind = mount.kind.as_deref().unwrap_or_default();
        if options.bind.is_some() || kind == "bind" {
            bind(root, index, mount, &options)?;
            continue;
        }
        let tree = create(root, index, mount, kind, &options)?;
        match (kind, mount.destination.trim_end_matches('/')) {
            ("proc", "/proc") => mounted.proc = Some(tree),
            ("devpts", "/dev/pts") => mounted.terminals = Some(tree),
            ("tmpfs", "/dev") => mounted.devices = Some(tree),
            _ => {}
        }
    }
    Ok(mounted)
}

/// Mounts a new file system.
fn create(
    root: BorrowedFd<'_>,
    index: usize,
    mount: &Mount,
    kind: &str,
    options: &Options,
) -> Result<OwnedFd, Failure> {
    if kind.is_empty() {
        return Err(Failure::invalid(format!(
            "mounts[{index}].type: is missing for {}",
            mount.destination
        )));
    }
    // With version 2 there is but one cgroup file system; its view starts at the container's
    // cgroup because of the cgroup namespace.
    let filesystem = if kind == "cgroup" { "cgroup2" } else { kind };
    let step = || format!("mount {kind} on {}", mount.destination);
    let tree = new_filesystem(
        filesystem,
        mount.source.as_deref(),
        &options.data,
        options.own,
    )
    .step(step)?;
    if !options.all.is_empty() {
        change(&tree, &options.all, true).step(step)?;
    }
    // A file system that was just made is private by itself.
    if options.propagation.is_some() {
        propagate(&tree, options).step(step)?;
    }
    let target =
        paths::make_folder(root, &mount.destination).map_err(|failure| within(&step(), failure))?;
    if mount.destination.starts_with("/proc/") || mount.destination.starts_with("/sys/") {
        must_be_empty_place(root, &target, &mount.destination)?;
    }
    attach(&tree, &target).step(step)?;
    Ok(tree)
}

/// Mounts over parts of procfs would let an image fake what security decisions read; sysfs has a
/// place made for cgroups only.
fn must_be_empty_place(
    _root: BorrowedFd<'_>,
    target: &OwnedFd,
    destination: &str,
) -> Result<(), Failure> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    let status = rustix::fs::fstatfs(target).step(|| format!("examine {destination}"))?;
    if status.f_type as u64 == PROC_SUPER_MAGIC {
        return Err(Failure::invalid(format!(
            "mounts: {destination} is inside procfs and must not be mounted over"
        )));
    }
    Ok(())
}

fn within(step: &str, failure: Failure) -> Failure {
    Failure {
        message: format!("{step}: {}", failure.message),
        ..failure
    }
}

/// Makes a file system instance that is not attached anywhere yet.
pub(crate) fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    data: &[(String, Option<String>)],
    attributes: Attributes,
) -> Result<OwnedFd, DetailedErrno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |error| detailed(&context, error);
    if let Some(source) = source.filter(|source| !source.is_empty()) {
        rustix::mount::fsconfig_set_string(&context, "source", source).map_err(explain)?;
    }
    for (key, value) in data {
        match value {
            Some(value) => {
                rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str())
            }
            None => rustix::mount::fsconfig_set_flag(&context, key.as_str()),
        }
        .map_err(explain)?;
    }
    rustix::mount::fsconfig_create(&context).map_err(explain)?;
    let flags = mount_attributes(attributes.set);
    let tree =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(explain)?;
    Ok(tree)
}

/// Attributes as fsmount(2) takes them.
pub(crate) fn mount_attributes(set: u64) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(set as u32)
}

/// A system call's error with what the kernel said about it in the file system context.
pub(crate) struct DetailedErrno {
    errno: rustix::io::Errno,
    text: String,
}

impl From<rustix::io::Errno> for DetailedErrno {
    fn from(errno: rustix::io::Errno) -> Self {
        let text = String::new();
        Self { errno, text }
    }
}

impl<T> Step<T> for Result<T, DetailedErrno> {
    fn step<S: Into<String>>(self, step: impl FnOnce() -> S) -> Result<T, Failure> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(error.errno).step(|| format!("{}{}", step().into(), error.text)),
        }
    }
}

/// Adds the kernel's messages to an error.
pub(crate) fn detailed(context: &OwnedFd, errno: rustix::io::Errno) -> DetailedErrno {
    DetailedErrno {
        errno,
        text: kernel_messages(context),
    }
}

/// What the kernel has to say in a file system context: ` (…)`, or nothing.
pub(crate) fn kernel_messages(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut buffer = [0; 512];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        // Every message starts with its class: `e `, `w ` or `i `.
        let message = message.get(2..).unwrap_or_default().trim_end().to_owned();
        text.push_str(&format!(" ({message})"));
        if length == 0 || text.len() > 2048 {
            break;
        }
    }
    text
}

/// Shows a file or folder of the host inside the container.
fn bind(
    root: BorrowedFd<'_>,
    index: usize,
    mount: &Mount,
    options: &Options,
) -> Result<(), Failure> {
    let destination = &mount.destination;
    let source = mount
        .source
        .as_deref()
        .filter(|source| !source.is_empty())
        .ok_or_else(|| {
            Failure::invalid(format!(
                "mounts[{index}].source: is missing for {destination}"
            ))
        })?;
    if let Some((key, _)) = options.data.first() {
        return Err(Failure::invalid(format!(
            "mounts[{index}].options: {key:?} has no meaning for a bind mount"
        )));
    }
    let step = || format!("bind {source} to {destination}");
    let recursive = options.bind.unwrap_or(true);
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(CWD, source, flags).step(step)?;
    if !options.own.is_empty() {
        change(&tree, &options.own, false).step(step)?;
    }
    if !options.all.is_empty() {
        change(&tree, &options.all, true).step(step)?;
    }
    propagate(&tree, options).step(step)?;
    let target = if paths::is_folder(&tree).step(step)? {
        paths::make_folder(root, destination)
    } else {
        paths::make_file(root, destination)
    }
    .map_err(|failure| within(&step(), failure))?;
    if destination.starts_with("/proc/") {
        must_be_empty_place(root, &target, destination)?;
    }
    attach(&tree, &target).step(step)?;
    if recursive && is_root(source) {
        uncover(root, destination).step(step)?;
    }
    Ok(())
}

/// Whether a path of the host is its root directory.
fn is_root(source: &str) -> bool {
    std::fs::canonicalize(source).is_ok_and(|path| path == Path::new("/"))
}

/// Takes the copy of the container's root off a recursive bind of the host's root: the container's
/// root lies on top of that (see [`super::root`]), so a copy of all mounts has it on top, too.
fn uncover(root: BorrowedFd<'_>, destination: &str) -> Result<(), rustix::io::Errno> {
    // The lookup ends at the topmost of the mounts on that folder; the descriptor's own path names
    // that very mount.
    let top = paths::find(root, destination)?;
    let path = format!("/proc/self/fd/{}", top.as_raw_fd());
    rustix::mount::unmount(path, UnmountFlags::DETACH)
}

/// Changes a tree's attributes.
pub(crate) fn change(
    tree: &OwnedFd,
    attributes: &Attributes,
    recursive: bool,
) -> Result<(), nix::errno::Errno> {
    let attributes = MountAttributes {
        set: attributes.set,
        clear: attributes.clear,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", recursive, &attributes)
}

/// Without a propagation option a mount is private, with all below it.
fn propagate(tree: &OwnedFd, options: &Options) -> Result<(), nix::errno::Errno> {
    let (propagation, recursive) = options.propagation.unwrap_or((libc::MS_PRIVATE, true));
    let attributes = MountAttributes {
        propagation,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", recursive, &attributes)
}

/// Attaches a tree to where a descriptor refers to.
pub(crate) fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), rustix::io::Errno> {
    rustix::mount::move_mount(
        tree,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}
