//! What can go wrong in the image store.

use std::path::PathBuf;

use keelson_model::error::ErrorKind;

/// An error of the image store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such image. The text is what Docker's clients match on.
    #[error("No such image: {0}")]
    NotFound(String),
    /// A short identifier fits more than one image.
    #[error("image identifier {0} is ambiguous: more than one image begins with it")]
    Ambiguous(String),
    /// A reference, a change or another argument is wrong.
    #[error("{0}")]
    Invalid(String),
    /// An archive cannot be used; nothing of it was kept.
    #[error("{0}")]
    Archive(String),
    /// Containers or other images forbid it. Docker's words.
    #[error("{0}")]
    Conflict(String),
    /// Something that we do not have.
    #[error("{0}")]
    NotImplemented(String),
    /// The client went away before the archive was complete.
    #[error("the archive ended before it was complete: {0}")]
    Interrupted(String),
    /// A registry, or what it sent. The text names the image.
    #[error("{message}")]
    Registry {
        /// What the caller can do about it.
        kind: ErrorKind,
        /// In Docker's words where clients know them.
        message: String,
    },
    /// A system call failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried: `create`, `mount`, ….
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A document of the store cannot be read or written.
    #[error(transparent)]
    Store(#[from] keelson_store::StoreError),
    /// A layer's archive cannot be used.
    #[error(transparent)]
    Layer(#[from] keelson_oci::layer::TreeError),
    /// The store itself is damaged.
    #[error("the image store is damaged: {0}")]
    Damaged(String),
}

impl From<keelson_oci::archive::ArchiveError> for ImageError {
    fn from(error: keelson_oci::archive::ArchiveError) -> Self {
        Self::Layer(error.into())
    }
}

impl From<keelson_oci::reference::ReferenceError> for ImageError {
    fn from(error: keelson_oci::reference::ReferenceError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl ImageError {
    /// Makes an error of a failed system call.
    pub(crate) fn io(
        operation: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// The kind, from which status and exit code follow.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous(_)
            | Self::Invalid(_)
            | Self::Archive(_)
            | Self::Layer(_)
            | Self::Interrupted(_) => ErrorKind::InvalidInput,
            Self::Registry { kind, .. } => *kind,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::Io { .. } | Self::Store(_) | Self::Damaged(_) => ErrorKind::Internal,
        }
    }
}
