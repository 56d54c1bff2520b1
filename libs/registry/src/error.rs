//! What can go wrong between us and a registry.

use keelson_model::error::ErrorKind;
use keelson_oci::digest::Digest;

use crate::asked::Asked;

/// What a registry says is missing when it answers 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The repository (`NAME_UNKNOWN`).
    Repository,
    /// What was asked for in it.
    Object,
    /// It says nothing but the status.
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
    /// The registry wants (other) credentials.
    #[error("registry {host} denies access: {reason}")]
    Denied {
        /// Host and port.
        host: String,
        /// Its words.
        reason: String,
    },
    /// The registry itself, and no token server before it, refuses the credentials of a login.
    #[error("login attempt to {address} failed with status: {status}")]
    Login {
        /// What was asked for with them: the URL of `/v2/`.
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
        /// What of it is missing, as far as it says so.
        missing: Missing,
        /// Its words.
        reason: String,
    },
    /// It answers with a status that is an error.
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
    /// It does not keep to the protocol.
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
    /// What came is not what was asked for.
    #[error(
        "{what} from registry {host} is corrupt: its digest is {found} where {expected} is \
         expected; try again, or ask the registry's operator"
    )]
    Digest {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: Asked,
        /// Digest that was asked for.
        expected: Digest,
        /// Digest of what came.
        found: Box<Digest>,
    },
    /// Our own side is set up wrongly: a certificate file, a host name.
    #[error("{0}")]
    Setup(String),
    /// The blob that is to be sent cannot be read here.
    #[error("cannot read what is to be uploaded: {0}")]
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
