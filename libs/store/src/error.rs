//! Errors of stored documents.

use std::io;
use std::path::{Path, PathBuf};

use crate::document::Misfit;

/// A stored document or directory could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation: `open`, `write`, `fsync`, `rename`, ….
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file does not contain the document.
    #[error("{}: not a valid document: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The position and the reason.
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
        /// The version to convert from.
        from: u32,
        /// The reason.
        reason: Misfit,
    },
    /// Another process holds the lock.
    #[error("{}: another process holds the lock (is another hostd running?)", path.display())]
    Locked {
        /// The locked file.
        path: PathBuf,
    },
    /// The name can't be used for a directory.
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

    /// Whether the file's content is damaged, for example by the disk; a document of another
    /// release does not count.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::Unversioned { .. })
    }

    /// Whether a newer release wrote the file, so that this one must not touch it.
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::TooNew { .. })
    }

    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
