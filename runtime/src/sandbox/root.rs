//! The container's root: put together, attached, and made the root of the mount namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use keelson_model::shim::Rootfs;
use keelson_sys::mount_attr::{self, MountAttributes};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::mounts::{detailed, mount_attributes};
use super::options;
use crate::failure::{Failure, Step};

/// Attaches the root in the process's mount namespace. The process's own root directory is still
/// the host's.
pub(crate) fn attach(root: &OwnedFd) -> Result<(), Failure> {
    // On top of the process's root directory, which lookups of absolute paths do not notice: they
    // start below it. So nothing of the host is covered that a bind mount might name.
    rustix::mount::move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step(|| "attach the container's root")
}

/// Puts the root together; the descriptor refers to a mount that is attached nowhere.
pub(crate) fn make(rootfs: &Rootfs) -> Result<OwnedFd, Failure> {
    Ok(match rootfs {
        Rootfs::Overlay { lower, upper, work } => match (lower.as_slice(), upper, work) {
            ([], _, _) => return Err(Failure::invalid("rootfs.lower must not be empty")),
            // overlayfs wants two layers; one that nothing is written to needs none.
            ([only], None, _) => {
                let tree = clone_tree(only)?;
                let readonly = MountAttributes {
                    set: mount_attr::RDONLY,
                    ..MountAttributes::default()
                };
                mount_attr::mount_setattr(tree.as_fd(), c"", true, &readonly)
                    .step(|| format!("make {} read-only", only.display()))?;
                tree
            }
            (_, Some(_), None) => return Err(Failure::invalid("rootfs.upper needs rootfs.work")),
            (_, upper, work) => overlay(lower, upper.as_deref().zip(work.as_deref()))?,
        },
        Rootfs::Folder { path } => clone_tree(path)?,
    })
}

/// Makes changes of this mount namespace invisible outside, and by default the other way round
/// too, but for what is bound as a slave of the host's mount.
pub(crate) fn isolate(propagation: Option<&str>) -> Result<(), Failure> {
    let flags = match propagation {
        None
        | Some("" | "private" | "rprivate" | "slave" | "rslave" | "unbindable" | "runbindable") => {
            MountPropagationFlags::DOWNSTREAM
        }
        Some(other) if options::propagation(other).is_some() => {
            return Err(Failure::unsupported(format!(
                "linux.rootfsPropagation: {other:?} is not supported yet"
            )));
        }
        Some(other) => {
            return Err(Failure::invalid(format!(
                "linux.rootfsPropagation: {other:?} is not a propagation type"
            )));
        }
    };
    rustix::mount::mount_change("/", flags | MountPropagationFlags::REC)
        .step(|| "make the host's mounts slaves")
}

fn clone_tree(path: &Path) -> Result<OwnedFd, Failure> {
    let tree = rustix::mount::open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )
    .step(|| format!("bind root folder {}", path.display()))?;
    let private = MountAttributes {
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", true, &private)
        .step(|| format!("make {} private", path.display()))?;
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
    for folder in lower {
        set("lowerdir+", folder)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    let result = rustix::mount::fsconfig_create(&context);
    if let Err(error) = result {
        let text = super::mounts::kernel_messages(&context);
        return Err(error).step(|| format!("mount overlay of {} layers{text}", lower.len()));
    }
    let flags = if upper.is_some() {
        MountAttrFlags::empty()
    } else {
        mount_attributes(mount_attr::RDONLY)
    };
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).step(|| "mount overlay")
}

/// Makes the prepared root the root of the mount namespace and lets go of the host's mounts.
pub(crate) fn enter(root: &OwnedFd, readonly: bool) -> Result<(), Failure> {
    if readonly {
        let attributes = MountAttributes {
            set: mount_attr::RDONLY,
            ..MountAttributes::default()
        };
        mount_attr::mount_setattr(root.as_fd(), c"", false, &attributes)
            .step(|| "root.readonly: make the root read-only")?;
    }
    rustix::process::fchdir(root).step(|| "change to the container's root")?;
    // The old root ends up mounted over the new one, from where it is taken off.
    rustix::process::pivot_root(".", ".").step(|| "pivot_root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step(|| "unmount the host's root")?;
    rustix::process::chdir("/").step(|| "change to /")
}
