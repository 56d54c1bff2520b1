//! The kinds of failure. Every crate's error enum maps to them, and they determine HTTP status and
//! exit code in one place.

use serde::{Deserialize, Serialize};

/// The kind of a failure, from the caller's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// The object exists, but its present state does not allow the operation.
    Conflict,
    /// The caller's input is wrong; the message names the field, the value and what would be right.
    InvalidInput,
    /// The operation would change nothing (a running container asked to start).
    NotModified,
    /// The caller may not do this.
    Forbidden,
    /// Keelson does not support this yet.
    NotImplemented,
    /// A needed component does not answer now; the same call may succeed later.
    Unavailable,
    /// The machine failed: a system call, a disk, an inconsistency of our own.
    Internal,
}

impl ErrorKind {
    /// The HTTP status code that the Docker Engine API and the host API answer with.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::InvalidInput => 400,
            Self::NotModified => 304,
            Self::Forbidden => 403,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// The exit code of our command line programs.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NotModified => 0,
            Self::InvalidInput => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Forbidden => 5,
            Self::NotImplemented => 6,
            Self::Unavailable => 7,
            Self::Internal => 1,
        }
    }
}
