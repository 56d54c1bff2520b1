//! Atomic replacement of one file.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// Start of the names of temporary files. Nothing else may be named like this.
const TEMPORARY: &[u8] = b".new-";

/// When a write survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: fsync of the file, rename, fsync of the folder.
    Flushed,
    /// When [`flush`] is called or the kernel writes back. Readers see the old or the new file
    /// at any time, also after the writing process was killed; after a power cut the file may be
    /// the old one, the new one, or (not on ext4) empty.
    Relaxed,
}

/// Replaces the file by `bytes`, with permission bits `mode`.
///
/// # Errors
/// [`StoreError::Io`]; the old file is then untouched.
pub fn write(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), StoreError> {
    let prepared = Prepared::write(path, bytes, mode, durability)?;
    match durability {
        Durability::Flushed => prepared.place(),
        Durability::Relaxed => prepared.rename(),
    }
}

/// Writes what is to replace the file, so that it survives a power cut and only needs its name.
///
/// # Errors
/// [`StoreError::Io`].
pub fn prepare(path: &Path, bytes: &[u8], mode: u32) -> Result<Prepared, StoreError> {
    Prepared::write(path, bytes, mode, Durability::Flushed)
}

/// The new version of a file, beside it. Dropping it leaves the old one.
#[derive(Debug)]
pub struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
    placed: bool,
}

impl Prepared {
    fn write(
        path: &Path,
        bytes: &[u8],
        mode: u32,
        durability: Durability,
    ) -> Result<Self, StoreError> {
        let prepared = Self {
            temporary: temporary_name(path)?,
            path: path.to_owned(),
            placed: false,
        };
        write_temporary(&prepared.temporary, bytes, mode, durability)?;
        Ok(prepared)
    }

    /// Replaces the file, and makes that survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn place(self) -> Result<(), StoreError> {
        let folder = parent(&self.path).to_owned();
        self.rename()?;
        flush_folder(&folder)
    }

    fn rename(mut self) -> Result<(), StoreError> {
        fs::rename(&self.temporary, &self.path).map_err(StoreError::io("rename", &self.path))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.placed {
            // What stays behind is swept at the next start; the first error is the one to report.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn write_temporary(
    temporary: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .map_err(StoreError::io("create", temporary))?;
    file.write_all(bytes)
        .map_err(StoreError::io("write", temporary))?;
    if durability == Durability::Flushed {
        file.sync_all()
            .map_err(StoreError::io("fsync", temporary))?;
    }
    Ok(())
}

/// Makes a file written with [`Durability::Relaxed`], and its name, survive a power cut.
///
/// # Errors
/// [`StoreError::Io`], also when the file does not exist.
pub fn flush(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::io("fsync", path))?;
    flush_folder(parent(path))
}

/// Makes the names inside a folder survive a power cut.
///
/// # Errors
/// [`StoreError::Io`].
pub fn flush_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(StoreError::io("fsync", folder))
}

/// Removes a file for good; one that does not exist is no error.
///
/// # Errors
/// [`StoreError::Io`].
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => flush_folder(parent(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// Removes the temporary files that an interrupted [`write`] left in a folder, and returns how
/// many there were. Call it before anything else writes there.
///
/// # Errors
/// [`StoreError::Io`] when the folder cannot be read or a file not be removed.
pub fn sweep(folder: &Path) -> Result<usize, StoreError> {
    let mut swept = 0;
    for entry in fs::read_dir(folder).map_err(StoreError::io("read folder", folder))? {
        let entry = entry.map_err(StoreError::io("read folder", folder))?;
        if is_temporary(&entry.file_name()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Whether a file of this name was left by an interrupted [`write`].
pub fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(TEMPORARY)
}

/// The temporary file is beside its target, because rename(2) stays within a file system, and
/// its name is unique within the process, because documents may be written by several threads.
fn temporary_name(path: &Path) -> Result<PathBuf, StoreError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(StoreError::Name {
            name: path.display().to_string(),
        });
    };
    let mut temporary = OsString::from(OsStr::from_bytes(TEMPORARY));
    temporary.push(name);
    temporary.push(format!(
        "-{}-{}",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    Ok(path.with_file_name(temporary))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_and_sets_the_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for durability in [Durability::Flushed, Durability::Relaxed] {
            for text in ["one", "two, longer", ""] {
                write(&path, text.as_bytes(), 0o600, durability).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        // rename(2) cannot replace a folder that is not empty by a file.
        let path = folder.path().join("a");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write(&path, b"new", 0o644, Durability::Flushed).unwrap_err();
        assert!(error.to_string().contains("rename"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_prepared_needs_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"old", 0o644, Durability::Relaxed).unwrap();
        drop(prepare(&path, b"dropped", 0o644).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let prepared = prepare(&path, b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        prepared.place().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_leaves_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"old", 0o644, Durability::Flushed).unwrap();
        // Killed after creating, after half of the data, and after fsync but before the rename.
        for bytes in ["", "ne", "new"] {
            fs::write(temporary_name(&path).unwrap(), bytes).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(sweep(folder.path()).unwrap(), 3);
        assert_eq!(sweep(folder.path()).unwrap(), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }

    #[test]
    fn removal_is_idempotent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"x", 0o644, Durability::Relaxed).unwrap();
        flush(&path).unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(flush(&path).unwrap_err().is_not_found());
    }
}
