//! Parts of volumes: a relative path in a volume is resolved by handles, never outside of the
//! volume, and that handle is mounted at a mount point of the engine. The runtime binds from there,
//! so that nobody can replace the path in between.
//!
//! Shared memory for other containers (`--ipc`) is mounted beside them while the container runs.
//!
//! The mount points are in RUN/volumes/ID, not in the container's run directory, which is deleted
//! with its content.

use std::ffi::CString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

use crate::EngineError;

const SHARED_MEMORY: &str = "shm";

/// The mount points of parts of a container's volumes and of its shared memory.
#[derive(Debug, Clone)]
pub(crate) struct SubpathPlaces(PathBuf);

impl SubpathPlaces {
    /// The mount points of the container `id`; `run` is RUN.
    pub(crate) fn of(run: &Path, id: &str) -> Self {
        Self(run.join("volumes").join(id))
    }

    /// The mount point of this name, for example the number of a volume.
    pub(crate) fn place(&self, name: impl Display) -> PathBuf {
        self.0.join(name.to_string())
    }

    /// Creates a mount point.
    pub(crate) fn make(&self, name: impl Display) -> Result<PathBuf, EngineError> {
        let place = self.place(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .map_err(EngineError::io("mkdir", &place))?;
        Ok(place)
    }

    /// The mount point of a container's shared memory.
    pub(crate) fn shared_memory(&self) -> PathBuf {
        self.place(SHARED_MEMORY)
    }

    /// Mounts shared memory with at most this many bytes, and returns the mount point.
    pub(crate) fn mount_shared_memory(&self, size: u64) -> Result<PathBuf, EngineError> {
        let place = self.make(SHARED_MEMORY)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let failed = EngineError::io("mount shared memory on", &place);
        let data = CString::new(format!("mode=1777,size={size}"))
            .map_err(|error| EngineError::io("mount shared memory on", &place)(error.into()))?;
        rustix::mount::mount("shm", &place, "tmpfs", flags, Some(data.as_c_str()))
            .map_err(|error| failed(error.into()))?;
        Ok(place)
    }

    /// Mounts the object at `subpath` in the directory `root`, and returns the mount point.
    pub(crate) fn mount(
        &self,
        name: impl Display,
        root: &Path,
        subpath: &Path,
    ) -> Result<PathBuf, EngineError> {
        let whole = root.join(subpath);
        let failed = |error: rustix::io::Errno| {
            EngineError::io("find in the mounted volume", &whole)(error.into())
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())
            .map_err(failed)?;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(&directory, subpath, flags, Mode::empty(), within)
            .map_err(failed)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).map_err(failed)?.st_mode);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(EngineError::io("mkdir", &self.0))?;
        let place = self.place(name);
        match kind {
            FileType::Directory => fs::create_dir(&place),
            _ => fs::write(&place, ""),
        }
        .map_err(EngineError::io("make", &place))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        open_tree(&found, "", clone)
            .and_then(|tree| {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                move_mount(&tree, "", CWD, &place, flags)
            })
            .map_err(|error| {
                EngineError::io("mount a part of a volume on", &place)(error.into())
            })?;
        Ok(place)
    }

    /// Unmounts them all. Only the empty mount points are deleted, never their contents.
    pub(crate) fn clear(&self) {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "parts of volumes not unmounted");
                return;
            }
        };
        for entry in entries.flatten() {
            let path = entry.path();
            // Unmount until nothing is mounted there.
            while unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
            let removed = fs::remove_dir(&path).or_else(|_| remove_empty_file(&path));
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "place of a volume not removed");
            }
        }
        // This fails if something is still mounted in it.
        let _ = fs::remove_dir(&self.0);
    }
}

fn remove_empty_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.len() {
        0 => fs::remove_file(path),
        _ => Err(io::Error::other("it is not empty")),
    }
}

/// Removes the mount points of stopped containers. `runs` returns whether a container runs.
pub(crate) fn clear_strays(run: &Path, runs: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(run.join("volumes")) else {
        return;
    };
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !runs(&id) {
            SubpathPlaces::of(run, &id).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_subpath_never_leads_out_of_its_volume() {
        if !keelson_testing::is_root() {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let volume = base.path().join("volume");
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::write(volume.join("a/b/file"), "inside").unwrap();
        fs::write(base.path().join("secret"), "outside").unwrap();
        symlink("/a/b", volume.join("absolute")).unwrap();
        symlink("../../secret", volume.join("escape")).unwrap();
        let places = SubpathPlaces::of(base.path(), "c");
        let at = places.mount(0, &volume, Path::new("a/b")).unwrap();
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "inside");
        let at = places
            .mount(1, &volume, Path::new("absolute/file"))
            .unwrap();
        assert_eq!(fs::read_to_string(at).unwrap(), "inside");
        for missing in ["escape", "none"] {
            let error = places.mount(2, &volume, Path::new(missing)).unwrap_err();
            assert!(
                error.to_string().contains("No such file or directory"),
                "{error}"
            );
        }
        clear_strays(base.path(), |id| id == "c");
        assert!(places.place(0).join("file").exists());
        clear_strays(base.path(), |_| false);
        assert!(!places.0.exists());
        assert_eq!(
            fs::read_to_string(volume.join("a/b/file")).unwrap(),
            "inside"
        );
    }
}
