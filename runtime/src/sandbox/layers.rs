//! Layers of a root in a user namespace. They are mounted with the namespace's mappings, so that
//! owners in the container, and on the disk, are those of the image.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use super::mounts;
use crate::failure::{Failure, Step};
use crate::spec::{Linux, mappings};

/// The container's root user as the host sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    /// The user namespace.
    pub(crate) map: BorrowedFd<'a>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl<'a> Owner<'a> {
    /// From the mappings of config.json. Without mappings the layers are used unchanged.
    pub(crate) fn new(map: &'a OwnedFd, linux: &Linux) -> Option<Self> {
        Some(Self {
            map: map.as_fd(),
            uid: mappings::outside(&linux.uid_mappings, 0)?,
            gid: mappings::outside(&linux.gid_mappings, 0)?,
        })
    }

    /// Applies the mappings to a mount that is not attached anywhere.
    pub(super) fn map(&self, tree: &OwnedFd, path: &Path) -> Result<(), Failure> {
        mounts::map_through(tree, self.map, false)
            .step(|| format!("rootfs: map ids of {}", path.display()))
    }

    /// Covers the layers with mapped mounts of themselves, in a mount namespace made for this
    /// purpose.
    pub(super) fn cover(
        &self,
        lower: &[PathBuf],
        upper: Option<(&Path, &Path)>,
    ) -> Result<(), Failure> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .step(|| "make a mount namespace for the layers")?;
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).step(|| "make the host's mounts slaves")?;
        let mut trees = Vec::with_capacity(lower.len() + 1);
        if let Some((upper, work)) = upper {
            // The upper and the work directory must be on one mount.
            trees.push(self.tree(above_both(upper, work))?);
        }
        for directory in lower {
            trees.push(self.tree(directory)?);
        }
        // Directories further up come first, so that no finished mount is covered by a later one.
        for (path, tree) in &trees {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(tree, "", CWD, *path, flags)
                .step(|| format!("rootfs: cover {}", path.display()))?;
        }
        Ok(())
    }

    fn tree<'p>(&self, path: &'p Path) -> Result<(&'p Path, OwnedFd), Failure> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, path, flags)
            .step(|| format!("rootfs: open {}", path.display()))?;
        self.map(&tree, path)?;
        Ok((path, tree))
    }

    /// Runs a closure as this user towards file systems, but with all rights of the host: files
    /// that overlayfs makes for itself must have an owner that the mapped mounts know.
    pub(super) fn act<T>(&self, what: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let step = || "rootfs: act as the container's root user";
        let all = rustix::thread::capabilities(None).step(step)?;
        let (gid, uid) = (Gid::from_raw(self.gid), Uid::from_raw(self.uid));
        let (group, user) = (setfsgid(gid), setfsuid(uid));
        // The change of the user cleared some capabilities.
        let done = rustix::thread::set_capabilities(None, all)
            .step(step)
            .and_then(|()| what());
        setfsuid(user);
        setfsgid(group);
        done
    }
}

/// The deepest directory that contains both paths.
fn above_both<'a>(one: &'a Path, other: &Path) -> &'a Path {
    one.ancestors()
        .find(|directory| other.starts_with(directory) && *directory != one)
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_above_both_is_found() {
        let above = |one, other| above_both(Path::new(one), Path::new(other));
        assert_eq!(above("/a/b/upper", "/a/b/work"), Path::new("/a/b"));
        assert_eq!(above("/a/b/c/upper", "/a/work"), Path::new("/a"));
        assert_eq!(above("/a/b", "/a/b"), Path::new("/a"));
    }
}
