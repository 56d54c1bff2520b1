//! Errors of operations on files of a container.

use std::io;
use std::path::{Path, PathBuf};

use hostd_images::ImageError;
use keelson_model::error::ErrorKind;
use keelson_oci::archive::ArchiveError;
use keelson_oci::compression::UnsupportedCompression;
use rustix::io::Errno;

/// Why a file of a container was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The path does not exist.
    #[error("Could not find the file {path} in container {container}")]
    NotFound {
        /// The path, as the client wrote it.
        path: String,
        /// The client's name for the container.
        container: String,
    },
    /// An archive can only be extracted into a directory.
    #[error("extraction point is not a directory")]
    NotDirectory,
    /// The container's root can't be written to.
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    /// A mount of the container can't be written to.
    #[error("mounted volume is marked read-only")]
    ReadOnlyMount,
    /// The path is in a file system of the kernel, such as procfs.
    #[error("{0} is on a file system of the kernel, which stores no files")]
    OfKernel(String),
    /// The client forbids it.
    #[error("cannot overwrite directory {0:?} with non-directory {0:?}")]
    OverwritesDirectory(String),
    /// The client forbids it.
    #[error("cannot overwrite non-directory {0:?} with directory {0:?}")]
    OverwritesFile(String),
    /// An entry's name leads out of the directory.
    #[error("the archive's entry {0:?} is outside of the directory that it is extracted to")]
    Outside(String),
    /// An entry of the archive can't be made.
    #[error("the archive's entry {name:?} is of a type that is not supported: {kind:?}")]
    Type {
        /// The entry.
        name: String,
        /// The type flag.
        kind: char,
    },
    /// The container has a user namespace without this user or group.
    #[error(
        "the archive's entry {name:?} belongs to user or group {id}, which does not exist in the container's user namespace"
    )]
    NoSuchUser {
        /// The entry.
        name: String,
        /// The user or group.
        id: u32,
    },
    /// The archive is malformed.
    #[error("the archive can't be read: {0}")]
    Archive(#[from] ArchiveError),
    /// The archive is compressed in another way.
    #[error("the archive can't be read: {0}")]
    Compression(#[from] UnsupportedCompression),
    /// The client left, or its data can't be decompressed.
    #[error("the archive can't be read: {0}")]
    Input(io::Error),
    /// The container was started or removed meanwhile.
    #[error(
        "container {0} was started or removed while files were copied into it: copy them again"
    )]
    Interrupted(String),
    /// The container's state changes all the time.
    #[error("container {0} changes its state all the time: try again")]
    Restless(String),
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// To what: seen from the container, or a path on the host for mounts.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The archive could not be made.
    #[error(transparent)]
    Pack(#[from] ImageError),
}

impl CopyError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io {
            operation,
            path,
            source: error.into(),
        }
    }

    /// The kind, from which the status follows.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NotDirectory
            | Self::ReadOnlyRoot
            | Self::ReadOnlyMount
            | Self::OfKernel(_)
            | Self::OverwritesDirectory(_)
            | Self::OverwritesFile(_)
            | Self::Outside(_)
            | Self::Type { .. }
            | Self::NoSuchUser { .. }
            | Self::Archive(_)
            | Self::Compression(_)
            | Self::Input(_) => ErrorKind::InvalidInput,
            Self::Interrupted(_) | Self::Restless(_) => ErrorKind::Conflict,
            Self::Pack(error) => error.kind(),
            Self::Io { .. } => ErrorKind::Internal,
        }
    }
}
