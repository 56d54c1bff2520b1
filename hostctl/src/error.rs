//! Errors of commands.

use std::io;
use std::path::PathBuf;

use keelson_model::error::ErrorKind;

/// A failure of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    #[error("can't start: {0}")]
    Runtime(io::Error),
    #[error("{url:?} is not a machine's address: expected unix:///path or tcp://host:port")]
    Address { url: String },
    #[error(
        "tcp:// needs client certificates: name their directory with --cert-path or DOCKER_CERT_PATH"
    )]
    NoCertificates,
    #[error("{}: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("can't reach {url}: {reason}")]
    Connect { url: String, reason: String },
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("the machine's answer can't be understood: {0}")]
    Answer(serde_json::Error),
    #[error("{0}")]
    Damaged(String),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    WrongConfiguration(String),
    #[error("the machine's answer ended before it was complete")]
    Incomplete,
    #[error("can't make a key: {0}")]
    Key(rcgen::Error),
    #[error(transparent)]
    Store(#[from] keelson_store::StoreError),
}

impl CtlError {
    /// The kind, which determines the exit code.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Address { .. }
            | Self::NoCertificates
            | Self::Certificate { .. }
            | Self::File { .. }
            | Self::WrongConfiguration(_) => ErrorKind::InvalidInput,
            Self::Connect { .. } => ErrorKind::Unavailable,
            Self::Refused { status, .. } => kind_of_status(*status),
            Self::Store(_) => ErrorKind::Internal,
            Self::Incomplete => ErrorKind::Unavailable,
            Self::Runtime(_) | Self::Answer(_) | Self::Key(_) | Self::Damaged(_) => {
                ErrorKind::Internal
            }
        }
    }
}

/// The reverse of [`ErrorKind::http_status`].
fn kind_of_status(status: u16) -> ErrorKind {
    [
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::InvalidInput,
        ErrorKind::NotModified,
        ErrorKind::Forbidden,
        ErrorKind::NotImplemented,
        ErrorKind::Unavailable,
    ]
    .into_iter()
    .find(|kind| kind.http_status() == status)
    .unwrap_or(ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_exit_codes() {
        assert_eq!(kind_of_status(403), ErrorKind::Forbidden);
        assert_eq!(kind_of_status(503).exit_code(), 7);
        assert_eq!(kind_of_status(418), ErrorKind::Internal);
    }
}
