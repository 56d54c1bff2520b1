//! The inputs and outputs of the machine.

use std::time::Duration;

use jiff::Timestamp;
use keelson_shim_protocol::Exit;

use super::health::CheckNumber;
use crate::Signal;
use crate::types::Status;
use crate::types::health::{CheckResult, HealthStatus};

/// A request that waits for its answer. Each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// The moment of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Since the engine was opened, without leaps.
    pub(crate) time: Duration,
    /// By the clock of the world.
    pub(crate) clock: Timestamp,
    /// The machine goes down: nothing is started any more.
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
    /// Stop it when it runs, and start it.
    Restart {
        signal: Signal,
        patience: Option<Duration>,
    },
    /// With force also when it runs.
    Remove {
        force: bool,
    },
}

/// Who stops a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopper {
    Caller,
    /// The machine goes down, which is no reason not to start it at the next boot.
    Shutdown,
}

/// Who froze a container, or wants to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// A caller, who also thaws it.
    Caller,
    /// The engine, to make an image of it.
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
    /// [`Action::Send`] failed; `over`: because the end has come, and waits to be recorded.
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

/// A living shim's report about its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) pid: i32,
    pub(crate) paused: bool,
    pub(crate) started_at: Option<Timestamp>,
}

/// A signal on its way.
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
    /// The ending's time is over.
    Deadline,
    /// Removal with force.
    Removal,
}

/// Why a container is thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thaw {
    /// It was asked for.
    Request(Ticket),
    /// Frozen processes can't act upon a signal.
    Signal(Option<Ticket>),
    /// It was frozen for a moment, as by a commit, by an engine that was killed then.
    Left,
}

/// An action. At most one action of a step reports back: [`Action::reports`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Make the shim and let the command run. The only effect during which other events come.
    Spawn,
    /// Report the end of the run with this process, from the connection at hand.
    Watch(i32),
    /// Check its health, and report that later.
    Check(CheckNumber),
    /// End a check that nobody waits for any more.
    EndCheck(CheckNumber),
    /// Keep the health for the time of the run.
    KeepHealth,
    Send(Sending),
    Freeze(Ticket, Freezer),
    Thaw(Thaw),
    /// Kill the remaining processes in the cgroup, and remove it.
    KillLeftovers,
    /// Have a shim that may live end its container, and wait for that.
    EndShim,
    /// Take the container's files away.
    Discard,
    /// Delete the files of a run.
    CleanRun,
    /// Write [`Machine::record`] to the disk.
    Persist,
    /// Send to clients' event streams.
    Emit(Happening),
    /// Answer the waits whose condition is met.
    Notify(Moment),
    /// Let go of clients that attached to the next run.
    DropPending,
    /// Forget the container: name, executions, image; its files are deleted in the background.
    Release,
    /// Answer a request.
    Answer(Ticket, Outcome),
    /// Handle a request that was kept.
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

impl Happening {
    /// Docker's word for it.
    pub(crate) const fn action(self) -> &'static str {
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
    /// A run has ended, or will not be.
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
    /// A removal: there is one already.
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
