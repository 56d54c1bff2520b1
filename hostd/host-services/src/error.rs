//! Why a request that concerns services fails.

use hostd_containers::EngineError;
use keelson_model::error::ErrorKind;

/// Why a request that concerns services fails.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// There is no such service.
    #[error("there is no service {0:?}: hostctl service list names them")]
    NotFound(String),
    /// The configuration switches it off.
    #[error("service {0} is switched off: hostctl service enable {0}")]
    Disabled(String),
    /// It can't be started as it is configured.
    #[error("service {name} can't start: {problem}")]
    Broken {
        /// Its name.
        name: String,
        /// Why.
        problem: String,
    },
    /// The machine stops.
    #[error("the machine stops: service {0} is not started any more")]
    Stopping(String),
    /// Its container was never made, so it has no log.
    #[error("service {0} has not run yet, so it has no log")]
    NoLog(String),
    /// A command in it did not succeed.
    #[error("service {name}: {command} failed: {reason}")]
    Command {
        /// Its name.
        name: String,
        /// The program.
        command: String,
        /// What it wrote, or why it wrote nothing.
        reason: String,
    },
    /// The engine refuses.
    #[error("service {name}: {source}")]
    Engine {
        /// Its name.
        name: String,
        /// Why.
        source: Box<EngineError>,
    },
}

impl ServicesError {
    pub(crate) fn engine(name: &str, source: EngineError) -> Self {
        Self::Engine {
            name: name.to_owned(),
            source: Box::new(source),
        }
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoLog(_) => ErrorKind::NotFound,
            Self::Disabled(_) | Self::Broken { .. } | Self::Stopping(_) => ErrorKind::Conflict,
            Self::Command { .. } => ErrorKind::Internal,
            Self::Engine { source, .. } => source.kind(),
        }
    }
}
