//! One process per directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::StoreError;

/// How long a taken lock is tried again. A process that was killed may have forked just before:
/// until that child executes its program it holds the lock along with every other descriptor.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// A lock (flock(2)) on a file. The kernel releases it when this process ends, however it ends.
#[derive(Debug)]
pub struct FileLock {
    #[expect(dead_code, reason = "held for its lock")]
    file: File,
}

impl FileLock {
    /// Makes the file and its directory when they do not exist, and locks the file. Blocks for up
    /// to two seconds.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process holds the lock, [`StoreError::Io`].
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(StoreError::io("create directory", directory))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(StoreError::io("open", path))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked {
                        path: path.to_owned(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::io("lock", path)(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/directory/lock");
        let first = FileLock::take(&path).unwrap();
        let error = FileLock::take(&path).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(first);
        FileLock::take(&path).unwrap();
    }

    #[test]
    fn a_lock_that_is_about_to_be_given_back_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = FileLock::take(&path).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| FileLock::take(&path));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
