//! Why the console, or one of its commands, fails.

use std::io;
use std::path::PathBuf;

use keelson_files::FileError;

/// Why the console, or one of its commands, fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    #[error("{operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("execute {program}: {source}")]
    Execute {
        program: &'static str,
        source: io::Error,
    },
    #[error("{program} failed: {reason}")]
    Failed {
        program: &'static str,
        reason: String,
    },
    #[error("sshd has ended: {0}")]
    SshdEnded(String),
    #[error("{0}")]
    Usage(String),
    #[error("user {0:?} has no container in the configuration: write container in its [[user]]")]
    NoContainer(String),
}

impl ConsoleError {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
