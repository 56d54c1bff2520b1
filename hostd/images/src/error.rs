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
    /// The store itself is damaged.
    #[error("the image store is damaged: {0}")]
    Damaged(String),
}

impl ImageError {
    /// The kind, from which status and exit code follow.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous(_) | Self::Invalid(_) | Self::Archive(_) | Self::Interrupted(_) => {
                ErrorKind::InvalidInput
            }
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::Io { .. } | Self::Damaged(_) => ErrorKind::Internal,
        }
    }
}
