//! File systems that exist once on a machine. Mounting one again makes no new instance: its options
//! would replace those of the host's mount. Even without options, a new mount of cgroup2 clears
//! flags like `nsdelegate`, and waits for an RCU grace period of the kernel each time. So
//! containers get a copy of the existing mount.

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

/// The file system types besides cgroup2.
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

/// File systems of which every mount is a new instance, so that it belongs to the container alone.
const NEW_EACH: &[&str] = &["devpts", "overlay", "proc", "ramfs", "tmpfs"];

/// Whether a new mount of a file system is an instance that belongs to the container alone.
pub(super) fn is_own(kind: &str) -> bool {
    NEW_EACH.contains(&kind)
}

/// A copy of the host's mount of a file system that exists once, not attached anywhere yet. `None`:
/// the type has several instances, or the host has not mounted it.
pub(super) fn shown(kind: &str, options: &Options) -> Result<Option<OwnedFd>, Failure> {
    let is_cgroups = matches!(kind, "cgroup" | "cgroup2");
    // A mount in a cgroup namespace shows a part of the hierarchy, and does not change the options.
    let is_single = match is_cgroups {
        true => in_initial_cgroups(),
        false => SINGLE.contains(&kind),
    };
    if !is_single {
        return Ok(None);
    }
    // The label of a container's mounts is not a label of the file system.
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

/// A mount of a host path with the requested attributes.
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

/// Whether this process is in the machine's initial cgroup namespace.
fn in_initial_cgroups() -> bool {
    /// `PROC_CGROUP_INIT_INO` (linux/proc_ns.h).
    const INITIAL: u64 = 0xEFFF_FFFB;
    match rustix::fs::stat("/proc/self/ns/cgroup") {
        Ok(status) => status.st_ino == INITIAL,
        // A kernel without cgroup namespaces has only the initial one.
        Err(error) => error == Errno::NOENT,
    }
}

/// Where a file system is mounted from its root.
fn mounted(kind: &str) -> Option<PathBuf> {
    let mounts = mountinfo::of_this_process().ok()?;
    let mut whole = mounts
        .into_iter()
        .filter(|mount| mount.root == Path::new("/"));
    whole
        .find(|mount| mount.kind == kind)
        .map(|mount| mount.target)
}
