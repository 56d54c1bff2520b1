//! Errors of the registry client.

use keelson_model::error::ErrorKind;
use keelson_oci::digest::Digest;

use crate::asked::Asked;

/// The object that a registry reports as missing when it answers 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The repository (`NAME_UNKNOWN`).
    Repository,
    /// The requested object in it.
    Object,
    /// It sent only the status.
    Unsaid,
}

/// An error of the registry client. The image is named by the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry cannot be reached, or answers that it cannot serve now.
    #[error("registry {host} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The registry wants credentials, or others.
    #[error("registry {host} denies access: {reason}")]
    Denied {
        /// Host and port.
        host: String,
        /// Its words.
        reason: String,
    },
    /// The registry itself (not its token server) refuses the credentials of a login.
    #[error("login attempt to {address} failed with status: {status}")]
    Login {
        /// The requested URL: that of `/v2/`.
        address: String,
        /// HTTP status with its words: `401 Unauthorized`.
        status: String,
    },
    /// The registry has no such repository, manifest or blob.
    #[error("{what} is not in registry {host}: {reason}")]
    NotFound {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: Asked,
        /// The missing object, if the registry says so.
        missing: Missing,
        /// Its words.
        reason: String,
    },
    /// It answers with an error status.
    #[error("registry {host} answers {status} to {what}: {reason}")]
    Status {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: Asked,
        /// HTTP status.
        status: u16,
        /// Its words.
        reason: String,
    },
    /// It violates the protocol.
    #[error(
        "registry {host} breaks the protocol ({what}): {reason}; if trying again does not help, \
         ask the registry's operator"
    )]
    Protocol {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: Asked,
        /// What is wrong.
        reason: String,
    },
    /// The received data is not the requested data.
    #[error(
        "{what} from registry {host} is corrupt: its digest is {found} where {expected} is \
         expected; try again, or ask the registry's operator"
    )]
    Digest {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: Asked,
        /// The requested digest.
        expected: Digest,
        /// The digest of the received data.
        found: Box<Digest>,
    },
    /// The local configuration is wrong: a certificate file, a host name.
    #[error("{0}")]
    Setup(String),
    /// The blob to send can't be read on this machine.
    #[error("cannot read the upload's source: {0}")]
    Source(String),
}

impl RegistryError {
    /// The kind, from which status and exit code follow.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::Digest { .. } => ErrorKind::Unavailable,
            Self::Denied { .. } | Self::Login { .. } => ErrorKind::Forbidden,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Setup(_) => ErrorKind::InvalidInput,
            Self::Source(_) => ErrorKind::Internal,
        }
    }
}

/// Why a setting of the registry client can't be used, for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(pub(crate) String);
