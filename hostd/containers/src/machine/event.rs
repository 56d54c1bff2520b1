//! The inputs and outputs of the machine.

use std::time::Duration;

use jiff::Timestamp;
use keelson_shim_protocol::Exit;

use super::health::CheckNumber;
use crate::Signal;
use crate::types::health::{CheckResult, HealthStatus};
use crate::types::{ContainerAction, Status};

/// A request that waits for its answer. Each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// The moment of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Time since the engine was opened, monotonic.
    pub(crate) time: Duration,
    /// The wall clock.
    pub(crate) clock: Timestamp,
    /// The machine shuts down: nothing is started any more.
    pub(crate) shutting_down: bool,
}

/// A request for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Start,
    /// End it by a signal, and by SIGKILL after some time; `None`: never.
    Stop {
        by: Stopper,
        signal: Signal,
        patience: Option<Duration>,
    },
    /// Send a signal; SIGKILL goes to all processes, and the answer comes when they have ended.
    Kill(Signal),
    Pause(Freezer),
    Unpause(Freezer),
    /// Stop it if it runs, and start it.
    Restart {
        signal: Signal,
        patience: Option<Duration>,
    },
    /// Whether it is removed even if it runs.
    Remove {
        force: bool,
    },
}

/// Who stops a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopper {
    Caller,
    /// The shutdown of the machine, after which it may start at the next boot.
    Shutdown,
}

/// Who has frozen a container, or wants to freeze it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// A client, which also thaws it.
    Caller,
    /// The engine, to create an image from it.
    Commit,
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Request(Ticket, Ask),
    /// [`Action::Spawn`]: its command was executed; the time is from before that.
    Started {
        pid: i32,
        at: Timestamp,
    },
    /// [`Action::Spawn`] failed, and nothing of it is left.
    NotStarted {
        code: i32,
        error: String,
    },
    /// [`Action::Send`].
    Sent(Sending),
    /// [`Action::Send`] failed; `over`: because the container has ended, which is not recorded yet.
    NotSent(Sending, Over),
    /// [`Action::Freeze`].
    Frozen(Ticket, Freezer),
    NotFrozen(Ticket, Over),
    /// [`Action::Thaw`].
    Thawed(Thaw),
    NotThawed(Thaw, Over),
    /// [`Action::Discard`].
    Removed,
    NotRemoved {
        error: String,
    },
    /// The shim reports the end of the run with this process.
    Exited {
        pid: i32,
        exit: Exit,
    },
    /// The shim lives.
    FoundAlive(Alive),
    /// The shim is gone, and left this record.
    FoundGone {
        record: Option<Exit>,
        boot: Boot,
    },
    /// The shim can't be asked; it is asked again until it answers.
    NoAnswer,
    /// [`Action::Check`]: a check has ended.
    Checked(CheckNumber, CheckResult),
    /// Time has passed.
    Time,
}

/// Whether a shim did not obey because its container has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Yes,
    No,
}

/// When a shim that is gone was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// In this boot: processes may be left.
    This,
    /// In an earlier one.
    Earlier,
}

/// A running shim's report about its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) pid: i32,
    pub(crate) paused: bool,
    pub(crate) started_at: Option<Timestamp>,
}

/// A signal to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    /// SIGKILL goes to all processes, others to the first.
    pub(crate) signal: Signal,
    pub(crate) purpose: Purpose,
}

/// Why a signal is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A caller's `kill`.
    Kill(Ticket),
    /// The first step of an ending.
    Stop,
    /// The deadline of the ending has passed.
    Deadline,
    /// Removal with force.
    Removal,
}

/// Why a container is thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thaw {
    /// A client has requested it.
    Request(Ticket),
    /// Frozen processes can't act upon a signal.
    Signal(Option<Ticket>),
    /// An engine had frozen it for a moment, for a commit, and was then killed.
    Left,
}

/// An action. At most one action of a step reports back: [`Action::reports`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Start the shim and the command. The only effect during which other events come.
    Spawn,
    /// Report the end of the run with this process, from the connection at hand.
    Watch(i32),
    /// Check its health, and report the result later.
    Check(CheckNumber),
    /// Cancel a check whose result is not needed any more.
    EndCheck(CheckNumber),
    /// Store the health for the rest of the run.
    KeepHealth,
    Send(Sending),
    Freeze(Ticket, Freezer),
    Thaw(Thaw),
    /// Kill the remaining processes in the cgroup, and remove it.
    KillLeftovers,
    /// Make a shim, if it still runs, end its container, and wait for that.
    EndShim,
    /// Remove the container's files.
    Discard,
    /// Delete the files of a run.
    CleanRun,
    /// Write [`Machine::record`] to the disk.
    Persist,
    /// Send an event to clients.
    Emit(Happening),
    /// Answer the waits whose condition is met.
    Notify(Moment),
    /// Disconnect clients that attached to the next run.
    DropPending,
    /// Forget the container: name, executions, image; its files are deleted in the background.
    Release,
    /// Answer a request.
    Answer(Ticket, Outcome),
    /// Handle a queued request.
    Again(Ticket, Ask),
}

impl Action {
    /// Whether its result comes back as an event.
    #[cfg(test)]
    pub(crate) fn reports(&self) -> bool {
        matches!(
            self,
            Self::Spawn | Self::Send(_) | Self::Freeze(..) | Self::Thaw(_) | Self::Discard
        )
    }
}

/// An event for clients' event streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Start,
    Restart,
    /// The OOM killer struck.
    Oom,
    Die {
        code: i32,
        seconds: i64,
    },
    Kill(Signal),
    Stop,
    Pause,
    Unpause,
    Destroy,
    /// Its health has changed.
    Health(HealthStatus),
}

impl From<Happening> for ContainerAction {
    fn from(happening: Happening) -> Self {
        match happening {
            Happening::Start => Self::Start,
            Happening::Restart => Self::Restart,
            Happening::Oom => Self::OutOfMemory,
            Happening::Die { code, seconds } => Self::Die { code, seconds },
            Happening::Kill(signal) => Self::Kill(signal),
            Happening::Stop => Self::Stop,
            Happening::Pause => Self::Pause,
            Happening::Unpause => Self::Unpause,
            Happening::Destroy => Self::Destroy,
            Happening::Health(status) => Self::Health(status),
        }
    }
}

#[cfg(test)]
impl Happening {
    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Oom => "oom",
            Self::Die { .. } => "die",
            Self::Kill(_) => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Destroy => "destroy",
            Self::Health(HealthStatus::Starting) => "health_status: starting",
            Self::Health(HealthStatus::Healthy) => "health_status: healthy",
            Self::Health(HealthStatus::Unhealthy) => "health_status: unhealthy",
        }
    }
}

/// Which waits are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A run has ended, or will not start.
    Ended,
    /// A start failed: it does not run.
    NotStarted,
    /// Its removal failed.
    NotRemoved,
    /// It is gone.
    Gone,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused(Refusal),
    /// With the error of the last start.
    NotStarted,
    /// With the error of the effect that has just reported.
    Failed,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A start: it runs already.
    Runs,
    /// A stop: it does not run.
    Rests,
    /// A signal, or a pause.
    NotRunning(Attempt),
    /// A start of a frozen container.
    Frozen,
    AlreadyPaused,
    NotPaused,
    /// A start: it can only be removed.
    Removable,
    /// A removal without force.
    InUse(Status),
    /// A removal: it is already being removed.
    BeingRemoved,
    /// A start or a removal without force: its shim does not answer.
    MayRun(Attempt),
    /// It did not end after SIGKILL.
    Survived,
    ShuttingDown,
    Gone,
}

/// The attempted action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Start,
    Kill,
    Pause,
    Remove,
}
