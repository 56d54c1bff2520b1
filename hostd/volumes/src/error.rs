//! Errors of volumes, in the words that Docker's clients match on.

use std::io;
use std::path::{Path, PathBuf};

use keelson_model::error::ErrorKind;
use keelson_store::StoreError;

use crate::plugins::PluginError;

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
        /// What is wrong, and what would be correct.
        reason: String,
    },
    /// Its driver can't be reached, or refuses.
    #[error("{operation} {name}: {source}")]
    Driver {
        /// The operation: `create`, `get`, `remove`.
        operation: &'static str,
        /// The volume.
        name: String,
        /// Why it was not possible.
        source: Box<PluginError>,
    },
    /// Its driver does not mount it.
    #[error("error while mounting volume '{name}': {source}")]
    NotMounted {
        /// The volume.
        name: String,
        /// Why.
        source: Box<PluginError>,
    },
    /// A volume of another driver has the name.
    #[error("create {name}: {reason}: volume name must be unique")]
    Taken {
        /// The volume.
        name: String,
        /// The driver that has it.
        reason: String,
    },
    /// Too many requests wait for it.
    #[error(
        "volume {0}: many requests wait for its plugin already: try again later, and see why it does not answer"
    )]
    Busy(String),
    /// Another prune is running.
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
    /// The mount of its options failed.
    #[error(
        "error while mounting volume '{}': failed to mount local volume: mount {device}:{}, flags: {flags:#x}, data: {data}: {source}",
        path.display(), path.display()
    )]
    Mount {
        /// The directory.
        path: PathBuf,
        /// The source of the mount.
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
        /// The operation: `mkdir`, `open`, ….
        operation: &'static str,
        /// Its object.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VolumeError {
    pub(crate) fn driver(
        operation: &'static str,
        name: &str,
    ) -> impl FnOnce(PluginError) -> Self + use<> {
        let name = name.to_owned();
        move |source| Self::Driver {
            operation,
            name,
            source: Box::new(source),
        }
    }

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
            Self::NoSuchVolume(_) => ErrorKind::NotFound,
            Self::Driver { source, .. } => source.kind(),
            Self::InUse { .. } | Self::Taken { .. } | Self::Pruning => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::Busy(_) => ErrorKind::Unavailable,
            Self::NotMounted { .. }
            | Self::Unreadable { .. }
            | Self::Mount { .. }
            | Self::Store(_)
            | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}
