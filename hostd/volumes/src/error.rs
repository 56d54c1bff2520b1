//! What can go wrong with volumes, in the words that Docker's clients match on.

use std::io;
use std::path::{Path, PathBuf};

use keelson_model::error::ErrorKind;
use keelson_store::StoreError;

/// An error of the volume store.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is no such volume.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// Containers hold it.
    #[error("remove {name}: volume is in use - [{}]", holders.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// The containers.
        holders: Vec<String>,
    },
    /// The caller's input is wrong.
    #[error("create {name}: {reason}")]
    Invalid {
        /// The volume.
        name: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// There is no such driver.
    #[error(
        "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )]
    NoSuchDriver {
        /// The volume.
        name: String,
        /// The driver.
        driver: String,
    },
    /// Another cleaning is under way.
    #[error("a prune operation is already running")]
    Pruning,
    /// Its document can't be read.
    #[error("volume {name} can't be used: {reason}")]
    Unreadable {
        /// The volume.
        name: String,
        /// Why.
        reason: String,
    },
    /// What its options ask for can't be mounted.
    #[error(
        "error while mounting volume '{}': failed to mount local volume: mount {device}:{}, flags: {flags:#x}, data: {data}: {source}",
        path.display(), path.display()
    )]
    Mount {
        /// The directory.
        path: PathBuf,
        /// What was to be mounted.
        device: String,
        /// Flags of mount(2).
        flags: u32,
        /// Data of mount(2), without secrets.
        data: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The document store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was done: `mkdir`, `open`, ….
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VolumeError {
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

    /// The kind, from which status and exit code follow.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchVolume(_) | Self::NoSuchDriver { .. } => ErrorKind::NotFound,
            Self::InUse { .. } | Self::Pruning => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::Unreadable { .. } | Self::Mount { .. } | Self::Store(_) | Self::Io { .. } => {
                ErrorKind::Internal
            }
        }
    }
}
