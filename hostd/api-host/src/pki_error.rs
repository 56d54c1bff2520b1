//! The failures of the machine's keys.

use std::io;
use std::path::{Path, PathBuf};

use keelson_http::Failure;
use keelson_model::error::ErrorKind;
use keelson_store::StoreError;

/// A failure of the certificate authority, or of the list of client certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("{} is not usable: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file can't be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The request for a certificate is wrong.
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    /// No certificate was issued to a name.
    #[error(
        "this machine has issued no certificate to {0:?}: look at the list, or name the certificate by \
         its fingerprint or serial number"
    )]
    NoClient(String),
    /// A key or certificate can't be made.
    #[error("can't make {what}: {reason}")]
    Make {
        /// The key or certificate.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl PkiError {
    /// The kind of failure. HTTP status and exit code follow from it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Request(_) => ErrorKind::InvalidInput,
            Self::NoClient(_) => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        }
    }

    pub(crate) fn make(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |error| Self::Make {
            what,
            reason: error.to_string(),
        }
    }

    pub(crate) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
