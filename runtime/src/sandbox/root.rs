//! The container's root: it is assembled, attached, and made the root of the mount namespace; or of
//! the process alone, if others use the namespace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use keelson_shim_protocol::Rootfs;
use keelson_sys::mount_attr;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::filesystem::{detailed, mount_attributes};
use super::layers::Owner;
use super::tree::change_propagation;
use super::{mounts, options};
use crate::failure::{Failure, Step};

/// Attaches the root in the process's mount namespace. The process's own root directory is still
/// the host's. The place should be `/`: lookups of absolute paths start below a mount on top of the
/// process's root directory, so they do not see it. Host paths that a bind mount may name are
/// therefore not covered.
pub(crate) fn attach(root: &OwnedFd, place: &Path) -> Result<(), Failure> {
    rustix::mount::move_mount(
        root,
        "",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step(|| format!("attach the container's root to {}", place.display()))
}

/// Assembles the root. The descriptor refers to a mount that is not attached anywhere. `owner`:
/// layers are mounted with the mappings of a user namespace; a directory is used unchanged.
pub(crate) fn make(
    rootfs: &Rootfs,
    propagation: Propagation,
    owner: Option<Owner<'_>>,
) -> Result<OwnedFd, Failure> {
    Ok(match rootfs {
        Rootfs::Overlay { lower, upper, work } => match (lower.as_slice(), upper, work) {
            ([], _, _) => return Err(Failure::invalid("rootfs.lower must not be empty")),
            // overlayfs needs two layers; a single read-only layer needs no overlayfs.
            ([only], None, _) => {
                let tree = clone_tree(only, propagation)?;
                if let Some(owner) = owner {
                    owner.map(&tree, only)?;
                }
                mounts::make_readonly(&tree, true)
                    .step(|| format!("make {} read-only", only.display()))?;
                tree
            }
            (_, Some(_), None) => return Err(Failure::invalid("rootfs.upper needs rootfs.work")),
            (_, upper, work) => {
                let upper = upper.as_deref().zip(work.as_deref());
                match owner {
                    Some(owner) => {
                        owner.cover(lower, upper)?;
                        owner.act(|| overlay(lower, upper))?
                    }
                    None => overlay(lower, upper)?,
                }
            }
        },
        Rootfs::Directory { path } => clone_tree(path, propagation)?,
    })
}

/// `linux.rootfsPropagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    /// `MS_…`, and whether it also applies to all mounts below. `None`: private.
    kind: Option<(u64, bool)>,
    /// Whether copies of the host's mounts are private from the start.
    detached: bool,
}

impl Propagation {
    /// Reads it.
    pub(crate) fn parse(given: Option<&str>) -> Result<Self, Failure> {
        let kind = match given {
            None | Some("" | "private" | "rprivate") => None,
            Some(name) => Some(options::propagation(name).ok_or_else(|| {
                Failure::invalid(format!(
                    "linux.rootfsPropagation: {name:?} is not a propagation type"
                ))
            })?),
        };
        let detached = false;
        Ok(Self { kind, detached })
    }

    /// The same for a container that receives no later mounts of the host: all mounts are made
    /// private at once, instead of each bind on its own.
    pub(crate) fn detached(self) -> Self {
        let detached = self.kind.is_none();
        Self { detached, ..self }
    }

    /// Whether copies of the host's mounts are private from the start.
    pub(crate) fn is_detached(self) -> bool {
        self.detached
    }

    /// Whether the host may see the container's mounts.
    pub(crate) fn is_shared(self) -> bool {
        self.is(libc::MS_SHARED)
    }

    fn is(self, flag: u64) -> bool {
        self.kind.is_some_and(|(kind, _)| kind == flag)
    }

    fn mount_flag(self) -> u64 {
        match self.is(libc::MS_SLAVE) {
            true => libc::MS_SLAVE,
            false => libc::MS_PRIVATE,
        }
    }
}

/// Makes changes of this mount namespace invisible outside. Mounts made outside show in binds that
/// are slaves of the host's mounts. With a shared root, shared binds stay shared with the host, as
/// callers who ask for both expect.
pub(crate) fn isolate(propagation: Propagation) -> Result<(), Failure> {
    if propagation.is_shared() {
        return rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE)
            .step(|| "make the host's root private");
    }
    if propagation.detached {
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        return rustix::mount::mount_change("/", flags).step(|| "make the host's mounts private");
    }
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .step(|| "make the host's mounts slaves")
}

fn clone_tree(path: &Path, propagation: Propagation) -> Result<OwnedFd, Failure> {
    let tree = rustix::mount::open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )
    .step(|| format!("bind root directory {}", path.display()))?;
    if !propagation.detached {
        change_propagation(&tree, propagation.mount_flag(), true)
            .step(|| format!("make {} private", path.display()))?;
    }
    Ok(tree)
}

fn overlay(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, Failure> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .step(|| "open file system overlay")?;
    let set = |key: &str, path: &Path| {
        rustix::mount::fsconfig_set_string(&context, key, path)
            .map_err(|error| detailed(&context, error))
            .step(|| format!("overlay: set {key} to {}", path.display()))
    };
    for directory in lower {
        set("lowerdir+", directory)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
        // The upper directory alone must contain all changes, because it is read without the
        // overlay mount.
        set("redirect_dir", Path::new("off"))?;
    }
    let result = rustix::mount::fsconfig_create(&context);
    if let Err(error) = result {
        let text = super::filesystem::kernel_messages(&context);
        return Err(error).step(|| format!("mount overlay of {} layers{text}", lower.len()));
    }
    let flags = if upper.is_some() {
        MountAttrFlags::empty()
    } else {
        mount_attributes(mount_attr::RDONLY)
    };
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).step(|| "mount overlay")
}

/// Hides mounts below an attached root from the other users of the mount namespace: a root that is
/// attached to a shared mount becomes shared itself.
pub(crate) fn keep_apart(root: &OwnedFd, propagation: Propagation) -> Result<(), Failure> {
    change_propagation(root, propagation.mount_flag(), true)
        .step(|| "make the container's root private")
}

fn make_readonly(root: &OwnedFd, readonly: bool) -> Result<(), Failure> {
    if !readonly {
        return Ok(());
    }
    mounts::make_readonly(root, false).step(|| "root.readonly: make the root read-only")
}

/// Makes an attached root the root of this process alone ([`super::shared`]).
pub(crate) fn enter_alone(
    root: &OwnedFd,
    readonly: bool,
    propagation: Propagation,
) -> Result<(), Failure> {
    make_readonly(root, readonly)?;
    rustix::process::fchdir(root).step(|| "change to the container's root")?;
    rustix::process::chroot(".").step(|| "change the root")?;
    rustix::process::chdir("/").step(|| "change to /")?;
    propagate(root, propagation)
}

/// Makes the prepared root the root of the mount namespace, and unmounts the host's mounts.
pub(crate) fn enter(
    root: &OwnedFd,
    readonly: bool,
    propagation: Propagation,
) -> Result<(), Failure> {
    make_readonly(root, readonly)?;
    // Shared mounts of the host must not be unmounted together with this namespace's copies.
    let host = match propagation.is(libc::MS_SHARED) {
        true => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let host = rustix::fs::open("/", flags, Mode::empty());
            Some(host.step(|| "open the host's root")?)
        }
        false => None,
    };
    rustix::process::fchdir(root).step(|| "change to the container's root")?;
    // The old root ends up mounted over the new one, and is unmounted from there.
    rustix::process::pivot_root(".", ".").step(|| "pivot_root")?;
    if let Some(host) = host {
        change_propagation(&host, libc::MS_SLAVE, true).step(|| "make the host's mounts slaves")?;
    }
    // The process stays in the container's root: it changed to that above.
    rustix::mount::unmount(".", UnmountFlags::DETACH).step(|| "unmount the host's root")?;
    propagate(root, propagation)
}

/// Gives the root the propagation that was asked for.
fn propagate(root: &OwnedFd, propagation: Propagation) -> Result<(), Failure> {
    match propagation.kind {
        // It is a slave already.
        None | Some((libc::MS_SLAVE, _)) => Ok(()),
        Some((kind, recursive)) => change_propagation(root, kind, recursive)
            .step(|| "linux.rootfsPropagation: change the root"),
    }
}
