//! One daemon per folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A lock on a folder; given back by the kernel when this process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    #[expect(dead_code, reason = "held for its lock")]
    file: File,
}

impl FolderLock {
    /// Makes the folder when it does not exist, and locks it.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("can't make folder {}", folder.display()))?;
        let path = folder.join("hostd.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("can't open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => bail!(
                "another hostd uses {}: its lock {} is taken",
                folder.display(),
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path()).unwrap();
        let error = FolderLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another hostd"), "{error}");
        drop(first);
        FolderLock::take(dir.path()).unwrap();
    }
}
