//! Reserved space for removing objects from a full disk: changing a document and moving a layer out
//! of sight need some blocks, too.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::error::ImageError;

/// Bytes. The largest need is a new copy of the list of names.
const SIZE: u64 = 512 << 10;

/// A file that only occupies blocks.
#[derive(Debug, Clone)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn new(root: &Path) -> Self {
        let reserve = Self {
            path: root.join("reserve"),
        };
        reserve.restore();
        reserve
    }

    /// Reserves the space, unless it is reserved already. If the disk is full, it is tried again
    /// when something was removed.
    pub(crate) fn restore(&self) {
        let whole = |blocks: u64| blocks * 512 >= SIZE;
        if fs::metadata(&self.path).is_ok_and(|file| whole(file.blocks())) {
            return;
        }
        let taken = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.path)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?));
        if let Err(error) = taken {
            tracing::debug!(%error, "no room is kept for removing images from a full disk");
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Runs a part of a removal. If the disk is full, it uses the reserved space.
    pub(crate) fn with<T>(
        &self,
        mut action: impl FnMut() -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        match action() {
            Err(error) if error.is_full() => match fs::remove_file(&self.path) {
                Ok(()) => action(),
                // Another removal used it.
                Err(gone) if gone.kind() == ErrorKind::NotFound => action(),
                Err(_) => Err(error),
            },
            result => result,
        }
    }
}
