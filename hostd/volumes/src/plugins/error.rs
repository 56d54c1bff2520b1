//! Errors of plugins, in the words that Docker's clients know, if there are any.

use std::io;
use std::path::PathBuf;

use keelson_model::error::ErrorKind;

use super::limits::{LONGEST_DESCRIPTION, MOST_EACH, SILENCE};

/// Why a volume plugin did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is no plugin of this name.
    #[error("error looking up volume plugin {name}: plugin \"{name}\" not found")]
    NotFound {
        /// The plugin.
        name: String,
    },
    /// It keeps no volumes.
    #[error(
        "error looking up volume plugin {name}: Plugin does not implement the requested driver"
    )]
    NoVolumes {
        /// The plugin.
        name: String,
    },
    /// The file with its address can't be used.
    #[error("error looking up volume plugin {name}: {}: {source}", path.display())]
    Description {
        /// The plugin.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be correct.
        source: DescriptionError,
    },
    /// Too many requests wait for it.
    #[error(
        "volume plugin {name}: {MOST_EACH} requests wait for it, or too many for all plugins: try again later, and see why it does not answer"
    )]
    Busy {
        /// The plugin.
        name: String,
    },
    /// It did not answer a moment ago.
    #[error(
        "volume plugin {name} did not answer less than {} s ago and is left out until then; see why it does not answer",
        SILENCE.as_secs()
    )]
    Silent {
        /// The plugin.
        name: String,
    },
    /// It could not be reached, or did not answer.
    #[error("{method}: volume plugin {name} at {address}: {source}")]
    Call {
        /// The plugin.
        name: String,
        /// Its address.
        address: String,
        /// The request.
        method: &'static str,
        /// Why.
        source: CallError,
    },
    /// It refused, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// Why the description of a plugin can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptionError {
    /// The file can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is too long.
    #[error("it is longer than {LONGEST_DESCRIPTION} bytes")]
    TooLong,
    /// The file is not the expected JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The address is wrong. The text says what is allowed.
    #[error("{0}")]
    Address(String),
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there.
    #[error("can't connect: {0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("{0}")]
    Io(io::Error),
    /// It took too long.
    #[error("no answer within {0} s")]
    TimedOut(u64),
    /// The answer is too long.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer can't be read.
    #[error("its answer can't be read: {0}")]
    Malformed(String),
}

impl PluginError {
    pub(super) fn busy(name: &str) -> Self {
        Self::Busy {
            name: name.to_owned(),
        }
    }

    /// The kind, from which status and exit code follow.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Busy { .. } | Self::Silent { .. } => ErrorKind::Unavailable,
            Self::NoVolumes { .. }
            | Self::Description { .. }
            | Self::Call { .. }
            | Self::Refused(_) => ErrorKind::Internal,
        }
    }

    /// Whether nobody listens at its address.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Call {
                    source: CallError::Connect(_),
                    ..
                }
        )
    }

    /// Whether it may have carried out the request although it did not confirm it.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            Self::Call { source, .. } => !matches!(source, CallError::Connect(_)),
            _ => false,
        }
    }

    /// Whether it did not answer in time.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Call {
                source: CallError::TimedOut(_),
                ..
            }
        )
    }
}
