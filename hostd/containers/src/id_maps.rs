//! Id-mapped mounts (mount_setattr(2), `MOUNT_ATTR_IDMAP`) for containers with a user namespace.
//!
//! In the engine's own files (layers, writable layers and volumes) the disk has the owners that
//! containers see. In binds and other file systems it has the host's.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use keelson_blocking::TaskDied;
use keelson_model::users::UserRange;
use keelson_sys::mount_attr::{self, MountAttributes, mount_setattr};
use keelson_sys::userns;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use crate::EngineError;

/// A user namespace whose maps are applied to mounts.
#[derive(Debug)]
pub(crate) struct IdMap(OwnedFd);

impl IdMap {
    /// Maps the container's ids on the disk to the host's.
    pub(crate) fn outwards(users: UserRange) -> Result<Self, EngineError> {
        let UserRange { base, size } = users;
        Self::new(&format!("0 {base} {size}"))
    }

    /// Maps the host's ids on the disk to the container's.
    pub(crate) fn inwards(users: UserRange) -> Result<Self, EngineError> {
        let UserRange { base, size } = users;
        Self::new(&format!("{base} 0 {size}"))
    }

    fn new(map: &str) -> Result<Self, EngineError> {
        match userns::make(map, map) {
            Ok(made) => Ok(Self(made)),
            Err(source) => Err(EngineError::UserMap {
                map: map.to_owned(),
                source,
            }),
        }
    }

    /// Applies the maps to a mount that is not attached yet.
    pub(crate) fn apply(&self, tree: &OwnedFd, recursive: bool) -> Result<(), Errno> {
        let attributes = MountAttributes {
            set: mount_attr::IDMAP,
            userns_fd: u64::try_from(self.0.as_raw_fd()).map_err(|_| Errno::BADF)?,
            ..MountAttributes::default()
        };
        mount_setattr(tree.as_fd(), c"", recursive, &attributes)
            .map_err(|error| Errno::from_raw_os_error(error as i32))
    }

    /// Runs a function in a separate mount namespace, in which the maps are applied to these
    /// directories. Blocks.
    pub(crate) fn within<T: Send>(
        &self,
        directories: &[PathBuf],
        work: impl FnOnce() -> Result<T, EngineError> + Send,
    ) -> Result<T, EngineError> {
        let run = || {
            self.cover(directories)?;
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("id-maps".to_owned());
            let thread = thread.spawn_scoped(scope, run);
            let thread = thread.map_err(EngineError::io("start", Path::new("a thread")))?;
            thread
                .join()
                .map_err(|panic| EngineError::from(TaskDied::of_panic(&*panic)))?
        })
    }

    fn cover(&self, directories: &[PathBuf]) -> Result<(), EngineError> {
        let top = Path::new("/");
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(|error| {
            EngineError::io("make a mount namespace for", Path::new("layers"))(error.into())
        })?;
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(top, flags)
            .map_err(|error| EngineError::io("make private", top)(error.into()))?;
        for directory in directories {
            let failed = EngineError::io("show the owners of a container in", directory);
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let place = || {
                let tree = rustix::mount::open_tree(CWD, directory, flags)?;
                self.apply(&tree, false)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(&tree, "", CWD, directory, flags)
            };
            place().map_err(|error: Errno| failed(error.into()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown};

    use super::*;

    const USERS: UserRange = UserRange {
        base: 100_000,
        size: 65_536,
    };

    /// The owners of two files, of root and of 100005, through a map.
    fn seen(map: &IdMap) -> Vec<(u32, u32)> {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        let directory = base.path().to_owned();
        std::fs::write(directory.join("a"), "").unwrap();
        std::fs::write(directory.join("b"), "").unwrap();
        chown(directory.join("b"), Some(100_005), Some(100_005)).unwrap();
        let owners = || {
            let owner = |name: &str| {
                let found = std::fs::metadata(directory.join(name)).unwrap();
                (found.uid(), found.gid())
            };
            Ok(vec![owner("a"), owner("b")])
        };
        map.within(std::slice::from_ref(&directory), owners)
            .unwrap()
    }

    #[test]
    fn owners_are_mapped_in_both_directions() {
        if !keelson_testing::is_root() {
            return;
        }
        let (nobody, root) = ((65_534, 65_534), (100_000, 100_000));
        assert_eq!(seen(&IdMap::outwards(USERS).unwrap()), [root, nobody]);
        assert_eq!(seen(&IdMap::inwards(USERS).unwrap()), [nobody, (5, 5)]);
    }
}
