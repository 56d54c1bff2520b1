//! Why the configuration's files can't be written, or a change is refused.

use std::io;
use std::path::PathBuf;

use keelson_model::error::ErrorKind;

use crate::problem::Problem;

/// A failure to write one of the configuration's files.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// One of the operator's files is wrong, so there is nothing good to keep.
    #[error("the operator's configuration has errors and is not kept as the last good one")]
    NotGood,
    /// The table cannot be written as TOML.
    #[error("the configuration cannot be written as TOML: {0}")]
    Serialize(#[from] toml::ser::Error),
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation: `create`, `write`, `fsync`, `rename`, ….
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl From<keelson_files::FileError> for SaveError {
    fn from(error: keelson_files::FileError) -> Self {
        Self::Io {
            operation: error.operation,
            path: error.path,
            source: error.source,
        }
    }
}

impl SaveError {
    /// The kind of the error for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotGood => ErrorKind::Conflict,
            Self::Serialize(_) | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a change of the configuration was not made. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The new configuration is wrong.
    #[error("{}", all(.0))]
    Wrong(Vec<Problem>),
    /// The name of the drop-in is none.
    #[error(
        "drop_in {0:?} is no name of a drop-in: use letters, digits, \"_\" and \"-\", at most 64, such as \"50-site\""
    )]
    Name(String),
    /// The time for the confirmation is too long.
    #[error("confirm_within {0} is out of range: use a number of seconds between 0 and 86400")]
    Window(u32),
    /// Another change waits.
    #[error("a change of {} waits for its confirmation: confirm it or roll it back first", .0.display())]
    Waits(PathBuf),
    /// No change waits.
    #[error("no change waits for a confirmation")]
    NothingWaits,
    /// There is nothing to take back.
    #[error("no change is remembered that could be taken back")]
    NothingToTakeBack,
    /// There is no such service.
    #[error("there is no service {name:?}: there are {known}")]
    NoService {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Another file has the last word.
    #[error("{field} has another value in a file that comes later: {origin}: correct it there")]
    Overridden {
        /// The field.
        field: String,
        /// Layer, file and line.
        origin: String,
    },
    /// A file of the state can't be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file can't be written.
    #[error(transparent)]
    Save(#[from] SaveError),
}

fn all(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

impl From<keelson_files::FileError> for ChangeError {
    fn from(error: keelson_files::FileError) -> Self {
        Self::Save(error.into())
    }
}

impl ChangeError {
    /// The kind of the error for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Wrong(_) | Self::Name(_) | Self::Window(_) => ErrorKind::InvalidInput,
            Self::Waits(_) | Self::Overridden { .. } => ErrorKind::Conflict,
            Self::NothingWaits | Self::NothingToTakeBack | Self::NoService { .. } => {
                ErrorKind::NotFound
            }
            Self::Unreadable { .. } => ErrorKind::Internal,
            Self::Save(error) => error.kind(),
        }
    }
}
