//! The states of a container.

use std::time::Duration;

use super::event::{Ask, Freezer, Outcome, Ticket};
use crate::types::Status;

/// The state of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// Never ran.
    Created,
    /// Its shim is being started.
    Starting(Start),
    /// Its first process runs.
    Running { pid: i32, ending: Option<Ending> },
    /// Its processes are frozen.
    Paused {
        pid: i32,
        by: Freezer,
        ending: Option<Ending>,
    },
    /// Its restart policy starts it at this time.
    Restarting { until: Duration },
    /// Its first process has ended.
    Exited,
    /// Its files are being removed. The list has the waiting callers, with their answers.
    Removing { waiting: Vec<(Ticket, Outcome)> },
    /// It can't be used; only removal is possible.
    Dead(Dead),
    /// The state of its shim is unknown.
    Unknown(Unknown),
    /// It was removed.
    Gone,
}

/// A running start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// The earlier state, to which it returns if the start fails.
    pub(super) from: Rest,
    pub(super) by: Starter,
    /// Whether it is part of a requested restart.
    pub(super) again: bool,
    /// They are answered when the start has reported.
    pub(super) waiting: Vec<Ticket>,
    /// Requests that are handled afterwards.
    pub(super) later: Vec<(Ticket, Ask)>,
}

/// The state before a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Created,
    Exited,
    Restarting,
}

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starter {
    Caller,
    Policy,
}

/// A requested end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(super) reason: Reason,
    /// Whether clients see it as a stop.
    pub(super) is_stop: bool,
    /// When the next, harder step is due; `None`: never.
    pub(super) next: Option<Duration>,
    /// SIGKILL was sent.
    pub(super) killed: bool,
    pub(super) waiting: Vec<(Ticket, Until)>,
}

/// Why a run should end. Later variants override earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Kill,
    Stop,
    Shutdown,
    Restart,
    Removal,
}

/// The event that a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    Ended,
    Started,
    Removed,
}

/// Why a container can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dead {
    /// Its document can't be read: nothing of it is written, and it may run.
    Document(String),
    /// Its state can't be read and its shim is gone: nothing of it is written.
    State(String),
    /// Its removal failed.
    Removal(String),
}

/// A container whose shim was not asked yet, or does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// The last known state: never `Starting`, `Unknown` or `Gone`.
    pub(super) last: Box<Life>,
    /// Clients are told.
    pub(super) silent: bool,
    /// Whether the policies for the opening of the engine apply.
    pub(super) opening: bool,
}

impl Life {
    /// The state that documents keep and clients see.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Created => Status::Created,
            // A state that an older engine, or one after a crash, understands.
            Self::Starting(Start { from, .. }) => match from {
                Rest::Created => Status::Created,
                Rest::Exited => Status::Exited,
                Rest::Restarting => Status::Restarting,
            },
            Self::Running { .. } => Status::Running,
            Self::Paused { .. } => Status::Paused,
            Self::Restarting { .. } => Status::Restarting,
            Self::Exited => Status::Exited,
            Self::Removing { .. } | Self::Gone => Status::Removing,
            Self::Dead(_) => Status::Dead,
            Self::Unknown(unknown) => unknown.last.status(),
        }
    }

    /// Its first process, while it is known to run: then its health is checked.
    pub(super) fn checked(&self) -> Option<i32> {
        match self {
            Self::Running { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    /// Its first process, while it has one.
    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Self::Running { pid, .. } | Self::Paused { pid, .. } => Some(*pid),
            Self::Unknown(unknown) => unknown.last.pid(),
            _ => None,
        }
    }
}
