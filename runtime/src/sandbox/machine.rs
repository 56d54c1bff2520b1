//! File systems of which the whole machine has one. Mounting one of them again gives no new
//! instance: its options would replace those of the host's mount, and even without any, a new mount
//! of cgroup2 takes away flags like `nsdelegate`, and waits for a grace period of the kernel's each
//! time. So containers are shown the mount that is there.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use keelson_linux::mountinfo;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use super::options::Options;
use super::tree::{change, change_propagation};
use crate::cgroup;
use crate::failure::{Failure, Step};

/// Besides cgroup2.
const SINGLE: &[&str] = &[
    "configfs",
    "debugfs",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "pstore",
    "resctrl",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "tracefs",
];

/// File systems of which every mount is a new instance, which so is the container's alone.
const NEW_EACH: &[&str] = &["devpts", "overlay", "proc", "ramfs", "tmpfs"];

/// Whether a new mount of a file system is an instance of the container's own.
pub(super) fn is_own(kind: &str) -> bool {
    NEW_EACH.contains(&kind)
}

/// The host's mount of a file system of which there is one, as a tree that is attached nowhere yet;
/// `None`: there are others of that type, or the host has not mounted it.
pub(super) fn shown(kind: &str, options: &Options) -> Result<Option<OwnedFd>, Failure> {
    let is_cgroups = matches!(kind, "cgroup" | "cgroup2");
    // A cgroup namespace shows a part of it, and leaves the options alone.
    let is_single = match is_cgroups {
        true => in_initial_cgroups(),
        false => SINGLE.contains(&kind),
    };
    if !is_single {
        return Ok(None);
    }
    // The label of a container's mounts is none of the file system's.
    let other = options.data.iter().find(|(key, _)| key != "context");
    if let Some((key, _)) = other {
        return Err(Failure::invalid(format!(
            "the option {key:?} would change {kind} for the whole machine; leave it out"
        )));
    }
    let place = match is_cgroups {
        true => cgroup::mount_point(),
        false => mounted(kind),
    };
    place.map(|place| copy(&place, options)).transpose()
}

/// The part of the machine's cgroups that a cgroup namespace shows, for processes that may not mount
/// it: those in a user namespace that does not own the cgroup namespace. `path` is the container's
/// cgroup.
pub(super) fn own_cgroups(path: &str, options: &Options) -> Result<OwnedFd, Failure> {
    copy(&cgroup::directory_of(path)?, options)
}

/// A mount of a place of the host's with the attributes that are asked for.
fn copy(place: &Path, options: &Options) -> Result<OwnedFd, Failure> {
    let step = || format!("bind {}", place.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, place, flags).step(step)?;
    change_propagation(&tree, libc::MS_PRIVATE, false).step(step)?;
    if !options.own.is_empty() {
        change(&tree, &options.own, false).step(step)?;
    }
    Ok(tree)
}

/// Whether this process is in the cgroup namespace that the machine began with.
fn in_initial_cgroups() -> bool {
    /// `PROC_CGROUP_INIT_INO` (linux/proc_ns.h).
    const INITIAL: u64 = 0xEFFF_FFFB;
    match rustix::fs::stat("/proc/self/ns/cgroup") {
        Ok(status) => status.st_ino == INITIAL,
        // A kernel without such namespaces has but one.
        Err(error) => error == Errno::NOENT,
    }
}

/// Where the whole of a file system is mounted.
fn mounted(kind: &str) -> Option<PathBuf> {
    let mounts = mountinfo::of_this_process().ok()?;
    let mut whole = mounts
        .into_iter()
        .filter(|mount| mount.root == Path::new("/"));
    whole
        .find(|mount| mount.kind == kind)
        .map(|mount| mount.target)
}
