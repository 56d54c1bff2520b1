//! What can go wrong with stored documents.

use std::io;
use std::path::{Path, PathBuf};

use crate::document::Misfit;

/// A stored document or directory could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was done: `open`, `write`, `fsync`, `rename`, ….
        operation: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file holds something else than the document.
    #[error("{}: not a valid document: {source}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file has no version, or one that is not a number.
    #[error("{}: the document has no version", path.display())]
    Unversioned {
        /// Which file.
        path: PathBuf,
    },
    /// The file was written by a newer Keelson.
    #[error(
        "{}: the document has version {found}; a release that knows version {readable_from} or \
         newer reads it, and this one knows version {supported}. The file is kept as it is",
        path.display()
    )]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// The oldest version whose readers understand it.
        readable_from: u32,
        /// The newest version that this code knows.
        supported: u32,
    },
    /// A document could not be brought from one version to the next, or to the one before.
    #[error("{}: migration from version {from}: {reason}", path.display())]
    Migration {
        /// Which file.
        path: PathBuf,
        /// Version that it was to be brought from.
        from: u32,
        /// What does not fit.
        reason: Misfit,
    },
    /// Another process holds the lock.
    #[error("{}: another process holds the lock (is another hostd running?)", path.display())]
    Locked {
        /// The locked file.
        path: PathBuf,
    },
    /// A name that cannot be a directory's name.
    #[error("{name:?} is not a valid object name")]
    Name {
        /// The name.
        name: String,
    },
}

impl From<keelson_files::FileError> for StoreError {
    fn from(error: keelson_files::FileError) -> Self {
        let keelson_files::FileError {
            operation,
            path,
            source,
        } = error;
        Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl StoreError {
    pub(crate) fn io(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Whether the file holds something else than what was written there: a damaged disk, not a
    /// release that does not know it.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::Unversioned { .. })
    }

    /// Whether a newer release wrote the file, and this one must leave it alone.
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::TooNew { .. })
    }

    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
