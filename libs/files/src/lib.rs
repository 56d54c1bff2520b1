//! Replaces files so that readers, and a machine after a power cut, see the old or the new file and
//! nothing in between.
//!
//! A file is written beside its target as `.new-<name>-<process>-<number>`, which no other writer
//! uses, and renamed over it. A file that a crash leaves under such a name is harmless. It is
//! removed
//! * when a process with the same number needs the name: PID 1 has the same number at each boot and
//!   counts from 0 again, so a name that is taken was left by its predecessor;
//! * by [`sweep`] of the directory, before anything writes there;
//! * by [`sweep_dead`], at any time.
//!
//! Everything happens relative to the open directory, and nothing follows a symbolic link in the
//! last part of a path: a link at the target is replaced, a link at the temporary name is removed.
//!
//! - [`write()`], [`write_changed`]: replace a file, at once.
//! - [`prepare`], [`Prepared`]: replace it in two steps: the content, then the name.
//! - [`overwrite`]: changes lines of a file that must stay the same file.
//! - [`flush`], [`flush_directory`]: make earlier writes survive a power cut.
//! - [`remove`]: remove a file for good.
//! - [`sweep`], [`sweep_dead`]: remove the temporary files of interrupted writes.

mod in_place;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

pub use in_place::{LONGEST_OVERWRITTEN, overwrite};

/// Start of the names of temporary files. Nothing else may be named like this.
const TEMPORARY: &[u8] = b".new-";

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// When a write survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: fsync of the file, rename, fsync of the directory.
    Flushed,
    /// When [`flush`] is called or the kernel writes back. Readers see the old or the new file
    /// at any time, also after the writing process was killed; after a power cut the file may be
    /// the old one, the new one, or (not on ext4) empty.
    Relaxed,
}

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct FileError {
    /// The operation: `open`, `create`, `write`, `fsync`, `rename`, `remove`, `read directory`.
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

fn failed<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> FileError + use<E> {
    let path = path.to_owned();
    move |source| FileError {
        operation,
        path,
        source: source.into(),
    }
}

/// Replaces the file by `bytes`. It belongs to this process's user and has exactly the permission
/// bits `mode`, independent of the umask and of the old file. Until it is complete, only its owner
/// may read it.
///
/// # Errors
/// [`FileError`]; the old file is then untouched. Exception: if the fsync of the directory fails,
/// the new file is in place, but may be gone after a power cut.
pub fn write(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), FileError> {
    let prepared = Prepared::write(path, bytes, mode, durability)?;
    match durability {
        Durability::Flushed => prepared.place(),
        Durability::Relaxed => prepared.rename().map(|_| ()),
    }
}

/// Writes the new content of the file, synchronised, so that only the rename is left.
///
/// # Errors
/// [`FileError`].
pub fn prepare(path: &Path, bytes: &[u8], mode: u32) -> Result<Prepared, FileError> {
    Prepared::write(path, bytes, mode, Durability::Flushed)
}

/// The new version of a file, beside it. Dropping it leaves the old one.
#[derive(Debug)]
pub struct Prepared {
    directory: OwnedFd,
    temporary: OsString,
    path: PathBuf,
    placed: bool,
}

impl Prepared {
    fn write(
        path: &Path,
        bytes: &[u8],
        mode: u32,
        durability: Durability,
    ) -> Result<Self, FileError> {
        let name = path
            .file_name()
            .ok_or_else(|| failed("create", path)(Errno::INVAL))?;
        let at = parent(path);
        let directory = open_directory(at)?;
        let (temporary, file) = create(&directory, at, name)?;
        let prepared = Self {
            directory,
            temporary,
            path: path.to_owned(),
            placed: false,
        };
        let temporary = at.join(&prepared.temporary);
        fill(file, bytes, mode, durability, &temporary)?;
        Ok(prepared)
    }

    /// Replaces the file, and makes that survive a power cut.
    ///
    /// # Errors
    /// As for [`write()`].
    pub fn place(self) -> Result<(), FileError> {
        let placed = self.rename()?;
        let at = parent(&placed.path);
        rustix::fs::fsync(&placed.directory).map_err(failed("fsync", at))
    }

    fn rename(mut self) -> Result<Self, FileError> {
        let name = self.path.file_name().unwrap_or_default();
        rustix::fs::renameat(&self.directory, &self.temporary, &self.directory, name)
            .map_err(failed("rename", &self.path))?;
        self.placed = true;
        Ok(self)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.placed {
            // Files that stay behind are removed later. The first error is the one to report.
            let _ = rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}

/// Like [`write()`], but does not touch a file that has these bytes already. Returns whether it was
/// written.
///
/// # Errors
/// As for [`write()`].
pub fn write_changed(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<bool, FileError> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    write(path, bytes, mode, durability).map(|()| true)
}

/// Makes a new file that only its owner may read, and returns it with its name.
fn create(directory: &OwnedFd, at: &Path, name: &OsStr) -> Result<(OsString, File), FileError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let temporary = temporary_name(name);
    let open = || rustix::fs::openat(directory, &temporary, flags, Mode::from_raw_mode(0o600));
    let opened = match open() {
        // No living process can own it: the number is this process's own.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(directory, &temporary, AtFlags::empty()).and_then(|()| open())
        }
        opened => opened,
    };
    let file = opened.map_err(failed("create", &at.join(&temporary)))?;
    Ok((temporary, file.into()))
}

fn fill(
    mut file: File,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
    path: &Path,
) -> Result<(), FileError> {
    file.write_all(bytes).map_err(failed("write", path))?;
    if mode != 0o600 {
        // The mode of a file that is created goes through the umask.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("write", path))?;
    }
    match durability {
        Durability::Flushed => file.sync_all().map_err(failed("fsync", path)),
        Durability::Relaxed => Ok(()),
    }
}

/// Unique among the living processes, and within this one.
fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(OsStr::from_bytes(TEMPORARY));
    temporary.push(name);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!("-{}-{number}", std::process::id()));
    temporary
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed("open", path))
}

/// Makes a file written with [`Durability::Relaxed`], and its name, survive a power cut.
///
/// # Errors
/// [`FileError`], also when the file does not exist.
pub fn flush(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(failed("fsync", path))?;
    flush_directory(parent(path))
}

/// Makes the names inside a directory survive a power cut.
///
/// # Errors
/// [`FileError`].
pub fn flush_directory(directory: &Path) -> Result<(), FileError> {
    rustix::fs::fsync(open_directory(directory)?).map_err(failed("fsync", directory))
}

/// Removes a file for good; a missing file is not an error.
///
/// # Errors
/// [`FileError`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => flush_directory(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Removes the temporary files that interrupted writes left in a directory, and returns how many
/// there were. Call it before anything else writes there.
///
/// # Errors
/// [`FileError`] when the directory cannot be read or a file not be removed.
pub fn sweep(directory: &Path) -> Result<usize, FileError> {
    sweep_those(directory, is_temporary)
}

/// Like [`sweep`] for directories that others write to at the same time: files that a living
/// process may still rename stay. A missing directory is not an error.
///
/// # Errors
/// As for [`sweep`].
pub fn sweep_dead(directory: &Path) -> Result<usize, FileError> {
    match sweep_those(directory, |name| writer(name).is_some_and(is_dead)) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(0),
        swept => swept,
    }
}

fn sweep_those(directory: &Path, is_meant: impl Fn(&OsStr) -> bool) -> Result<usize, FileError> {
    let mut swept = 0;
    let unreadable = || failed("read directory", directory);
    for entry in std::fs::read_dir(directory).map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        if is_meant(&entry.file_name()) {
            let path = entry.path();
            match std::fs::remove_file(&path) {
                // Another process sweeps, too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => {
                    removed.map_err(failed("remove", &path))?;
                    swept += 1;
                }
            }
        }
    }
    Ok(swept)
}

/// Whether a file of this name was left by an interrupted [`write()`].
pub fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(TEMPORARY)
}

/// The process that writes, or wrote, a temporary file of this name.
fn writer(name: &OsStr) -> Option<u32> {
    let name = std::str::from_utf8(name.as_bytes().strip_prefix(TEMPORARY)?).ok()?;
    let (rest, number) = name.rsplit_once('-')?;
    number.parse::<u64>().ok()?;
    rest.rsplit_once('-')?.1.parse().ok()
}

fn is_dead(process: u32) -> bool {
    // Without /proc it is unknown whether the process lives.
    process != std::process::id()
        && Path::new("/proc/self").exists()
        && !Path::new(&format!("/proc/{process}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_contain_their_writers() {
        for (name, found) in [
            (".new-machine-id-1-0", Some(1)),
            (".new-a-77-12", Some(77)),
            (".new-a-x-12", None),
            (".new-a-77", None),
            (".new-", None),
            ("new-a-77-12", None),
        ] {
            assert_eq!(writer(OsStr::new(name)), found, "{name}");
        }
    }

    /// The situation of PID 1 after a power cut: the same number, and its counter at 0 again.
    #[test]
    fn a_leftover_under_the_own_name_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine-id");
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        let prefix = format!(".new-machine-id-{}-", std::process::id());
        // Other tests of this process count, too.
        let next = COUNTER.load(Ordering::Relaxed);
        for number in next..next + 500 {
            let left_over = directory.path().join(format!("{prefix}{number}"));
            match number % 2 {
                0 => std::fs::write(left_over, "torn").unwrap(),
                _ => std::os::unix::fs::symlink(&victim, left_over).unwrap(),
            }
        }
        for text in ["one", "two"] {
            write(&path, text.as_bytes(), 0o444, Durability::Flushed).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert!(!path.is_symlink());
        assert_eq!(sweep(directory.path()).unwrap(), 498);
    }
}
