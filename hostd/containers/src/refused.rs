//! The requests that a container's state forbids, in Docker's words.

use std::fmt;

use keelson_model::error::ErrorKind;

use crate::EngineError;
use crate::machine::{Attempt, KILL_TIME, Refusal};
use crate::types::{Snapshot, Status};

/// A request that the container's state forbids.
#[derive(Debug, Clone)]
pub struct Refused {
    id: String,
    name: String,
    refusal: Refusal,
}

impl Refused {
    /// The kind, from which status and exit code follow.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self.refusal {
            Refusal::Runs | Refusal::Rests => ErrorKind::NotModified,
            Refusal::Gone => ErrorKind::NotFound,
            Refusal::Survived => ErrorKind::Internal,
            _ => ErrorKind::Conflict,
        }
    }

    /// Whether something went wrong, and not only that it is too late or not needed.
    pub(crate) fn is_failure(&self) -> bool {
        self.kind() == ErrorKind::Internal
    }

    /// Whether the container is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.refusal == Refusal::Gone
    }
}

impl EngineError {
    pub(crate) fn refused(container: &Snapshot, refusal: Refusal) -> Self {
        Self::Refused(Refused {
            id: container.id.clone(),
            name: container.name.clone(),
            refusal,
        })
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, refusal } = self;
        match refusal {
            Refusal::Runs | Refusal::Rests => write!(f, "container {id} is already in that state"),
            Refusal::NotRunning(Attempt::Kill) => {
                write!(
                    f,
                    "cannot kill container: {name}: container {id} is not running"
                )
            }
            Refusal::NotRunning(_) => write!(f, "container {id} is not running"),
            Refusal::Frozen => f.write_str("cannot start a paused container, try unpause instead"),
            Refusal::AlreadyPaused => write!(f, "container {id} is already paused"),
            Refusal::NotPaused => write!(f, "container {id} is not paused"),
            Refusal::Removable => {
                f.write_str("container is marked for removal and cannot be started")
            }
            Refusal::InUse(Status::Paused) => write!(
                f,
                "cannot remove container \"{name}\": container is paused and must be unpaused first"
            ),
            Refusal::InUse(status) => write!(
                f,
                "cannot remove container \"{name}\": container is {status}: stop the container before removing or force remove"
            ),
            Refusal::BeingRemoved => {
                write!(f, "removal of container {name} is already in progress")
            }
            Refusal::MayRun(Attempt::Remove) => write!(
                f,
                "cannot remove container \"/{name}\": its shim does not answer, so it may run; try again, or force remove"
            ),
            Refusal::MayRun(_) => write!(
                f,
                "container {id} cannot be started: its shim does not answer, so it may run; try again, or remove it with force"
            ),
            Refusal::Survived => write!(
                f,
                "container {id} did not end {} s after SIGKILL",
                KILL_TIME.as_secs()
            ),
            Refusal::ShuttingDown => f.write_str("the engine is shutting down"),
            Refusal::Gone => write!(f, "No such container: {id}"),
        }
    }
}
