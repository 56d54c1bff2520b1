//! The life of a container, as a pure state machine.
//!
//! The machine takes events (requests, reports of effects and of the shim, the passing of time)
//! and returns the effects to carry out, in order. It does no I/O and reads no clock. The driver
//! (`crate::life`) steps it under the container's lock and reports back what its effects did.
//!
//! In the table, each cell says which effects follow, and after `→` which state. `–`: nothing
//! happens. A phrase in parentheses is a refusal. `later`: the request is kept and taken up again
//! when the start has reported, so that nothing is asked of a container that is half there.
//!
// The table is compared with the code and with docs/architecture.md by `table.rs`.
// TABLE BEGIN
//! | request | `Created` | `Starting` | `Running` | `Paused` | `Restarting` | `Exited` | `Removing` | `Dead` | `Unknown`, ran | `Unknown`, rested | `Gone` |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | start | spawn → `Starting` | later | (runs) | (is paused) | (runs) | spawn → `Starting` | (can only be removed) | (can only be removed) | (runs) | (may run) | (no such container) |
//! | stop | (does not run) | later | send signal → ending | send signal → ending | `stop`, wake, write, done → `Exited` | (does not run) | (does not run) | (does not run) | send signal → ending | (does not run) | (no such container) |
//! | kill | (does not run) | later | send signal | send signal | `stop`, wake, write, done → `Exited` | (does not run) | (does not run) | (does not run) | send signal | (does not run) | (no such container) |
//! | pause | (does not run) | later | freeze | (is paused already) | (does not run) | (does not run) | (does not run) | (does not run) | freeze | (does not run) | (no such container) |
//! | unpause | (is not paused) | later | (is not paused) | thaw | (is not paused) | (is not paused) | (is not paused) | (is not paused) | (is not paused) | (is not paused) | (no such container) |
//! | restart | spawn → `Starting` | later | send signal → ending | send signal → ending | `stop`, wake, spawn → `Starting` | spawn → `Starting` | (can only be removed) | (can only be removed) | send signal → ending | (may run) | (no such container) |
//! | remove | discard → `Removing` | later | (in use) | (in use) | (in use) | discard → `Removing` | (is being removed) | discard → `Removing` | (in use) | (may run) | (no such container) |
//! | remove with force | discard → `Removing` | later | send SIGKILL → ending | send SIGKILL → ending | discard → `Removing` | discard → `Removing` | (is being removed) | discard → `Removing` | send SIGKILL → ending | end shim, kill leftovers, discard → `Removing` | (no such container) |
//!
//! | report | `Starting` | `Running` | `Paused` | `Restarting` | `Removing` | `Unknown`, ran | `Unknown`, rested |
//! |---|---|---|---|---|---|---|---|
//! | started | write, `start`, watch → `Running` | – | – | – | – | – | – |
//! | not started | clean, drop, wake, write → `Exited` | – | – | – | – | – | – |
//! | stop signal sent | – | write, `kill` | write, `kill`, thaw | – | – | write, `kill` | – |
//! | SIGKILL sent | – | write, `kill` | write, `kill` | – | – | write, `kill` | – |
//! | SIGKILL not sent | kill leftovers | kill leftovers | kill leftovers | kill leftovers | kill leftovers | kill leftovers | kill leftovers |
//! | frozen | done | write, `pause`, done → `Paused` | write, `pause`, done | done | done | write, `pause`, done | done |
//! | thawed | done | write, `unpause`, done | write, `unpause`, done → `Running` | done | done | write, `unpause`, done | done |
//! | removed | – | – | – | – | release, `destroy`, drop, wake → `Gone` | – | – |
//! | not removed | – | – | – | – | wake → `Dead` | – | – |
//! | exited | – | `die`, wake, write, clean → `Exited` | `die`, wake, write, clean → `Exited` | – | – | `die`, wake, write, clean → `Exited` | – |
//! | found alive | – | watch | write, watch → `Running` | – | – | watch → `Running` | write, watch → `Running` |
//! | found gone, record | – | `die`, wake, write, clean → `Exited` | `die`, wake, write, clean → `Exited` | – | – | `die`, wake, write, clean → `Exited` | `die`, wake, write, clean → `Exited` |
//! | found gone, no record | – | kill leftovers, `die`, wake, write, clean → `Exited` | kill leftovers, `die`, wake, write, clean → `Exited` | – | – | kill leftovers, `die`, wake, write, clean → `Exited` | kill leftovers, clean → `Exited` |
//! | no answer | – | → `Unknown` | → `Unknown` | – | – | – | – |
//! | time | – | – | – | spawn → `Starting` | – | – | – |
//!
//! | end of a run | follows |
//! |---|---|
//! | by itself | `die`, wake, write, clean → `Exited` |
//! | by itself, policy `always` | `die`, wake, write, clean → `Restarting` |
//! | by itself, automatic removal | `die`, wake, discard → `Removing` |
//! | `kill`, policy `always` | `die`, wake, write, clean → `Exited` |
//! | `stop`, policy `always` | `die`, `stop`, wake, write, clean → `Exited` |
//! | `stop`, automatic removal | `die`, `stop`, wake, discard → `Removing` |
//! | shutdown, policy `always` | `die`, `stop`, wake, write, clean → `Exited` |
//! | `restart`, automatic removal | `die`, `stop`, wake, write, clean, spawn → `Starting` |
//! | removal, policy `always` | `die`, wake, write, discard → `Removing` |
// TABLE END
//!
//! - **`Running` and `Paused` may carry an `Ending`**: who wants the end and what follows it (rest,
//!   another start, removal). Of several the strongest wins, and the earliest deadline. At its
//!   deadline SIGKILL is sent; ten seconds later whoever waits is told that it did not help.
//! - **The end of a run** is told (`die`) before it is written: until then the shim's record holds
//!   it. What follows: removal or another start when one was asked for; else the restart policy;
//!   else automatic removal; else `Exited`.
//! - **`Unknown`** keeps the last state known. Requests that only need what that state says are
//!   handled as there; a start, or a removal that might forget a living process, is not.
//! - **Time** is one event. [`Machine::deadline`] says when it is wanted next; one that comes early
//!   does nothing, so a timer that was not stopped in time does no harm.
//! - **Health** will enter here: `Healthy`/`Unhealthy` as reports of an effect `Probe`, its next
//!   time as one more deadline of `Running`, and its state beside `ending`.

mod adoption;
mod policy;
mod record;
mod requests;
mod run;

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::time::Duration;

use jiff::Timestamp;
use keelson_model::spec::RestartPolicy;
use keelson_shim_protocol::Exit;

pub(crate) use self::record::{Found, Record, lost_exit};
use crate::Signal;
use crate::types::{State, Status};

/// How long processes may take to end after SIGKILL. More means that they hang in the kernel.
pub(crate) const KILL_TIME: Duration = Duration::from_secs(10);

/// A request that waits for its answer. Each is answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// Never ran.
    Created,
    /// Its shim is being made.
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
    /// Its files are being removed; who waits for that, and with which answer.
    Removing { waiting: Vec<(Ticket, Outcome)> },
    /// It can't be used; only removal is possible.
    Dead(Dead),
    /// What became of its shim is not known.
    Unknown(Unknown),
    /// It was removed.
    Gone,
}

/// A start that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    /// Where it came from, and returns to when the start fails.
    from: Rest,
    by: Starter,
    /// Part of a restart that a caller asked for.
    again: bool,
    /// They are answered when the start has reported.
    waiting: Vec<Ticket>,
    /// Requests that are taken up then.
    later: Vec<(Ticket, Ask)>,
}

/// What a start begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Created,
    Exited,
    Restarting,
}

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starter {
    Caller,
    Policy,
}

/// Who froze a container, or wants to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// A caller, who also thaws it.
    Caller,
    /// The engine, to make an image of it.
    Commit,
}

/// The end of a run that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    reason: Reason,
    /// It counts as a stop for clients.
    is_stop: bool,
    /// When the next, harder step is due; `None`: never.
    next: Option<Duration>,
    /// SIGKILL was sent.
    killed: bool,
    waiting: Vec<(Ticket, Until)>,
}

/// Why a run is to end; the later one here overrules the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Kill,
    Stop,
    Shutdown,
    Restart,
    Removal,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
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
    /// The last state known: neither `Starting`, `Unknown` nor `Gone`.
    last: Box<Life>,
    /// Clients are told.
    silent: bool,
    /// The engine was opened: policies for that apply.
    opening: bool,
}

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

/// What somebody wants of a container.
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

/// What a living shim says of its container.
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
}

/// What to do. At most one action of a step reports back: [`Action::reports`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Make the shim and let the command run. The only effect during which other events come.
    Spawn,
    /// Report the end of the run with this process, from the connection at hand.
    Watch(i32),
    Send(Sending),
    Freeze(Ticket, Freezer),
    Thaw(Thaw),
    /// Kill what is left in the cgroup, and remove it.
    KillLeftovers,
    /// Have a shim that may live end its container, and wait for that.
    EndShim,
    /// Take the container's files away.
    Discard,
    /// Delete what a run leaves.
    CleanRun,
    /// Write [`Machine::record`] to the disk.
    Persist,
    /// Tell clients' event streams.
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

/// What clients' event streams tell.
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

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Start,
    Kill,
    Pause,
    Remove,
}

/// What a container's specification says about its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) restart: RestartPolicy,
    /// Removed at the end of its run.
    pub(crate) auto_remove: bool,
    /// The signal that asks for the end.
    pub(crate) stop_signal: Signal,
    /// Whether the policy also applies when the engine is opened: services of the host are started
    /// by whoever manages them.
    pub(crate) at_opening: bool,
}

/// A container's life and what is known of its last run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    life: Life,
    record: Record,
    rules: Rules,
    /// The pause before the last restart by policy.
    pause: Option<Duration>,
}

impl Machine {
    /// A new container.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            life: Life::Created,
            record: Record::default(),
            rules,
            pause: None,
        }
    }

    /// The rules were changed.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Takes an event; returns what to do, in order.
    pub(crate) fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        match event {
            Event::Request(ticket, ask) => self.request(ticket, ask, now),
            Event::Started { pid, at } => self.started(pid, at),
            Event::NotStarted { code, error } => self.not_started(code, error),
            Event::Removed => self.removed(),
            Event::NotRemoved { error } => self.not_removed(error),
            Event::FoundAlive(alive) => self.found_alive(alive, now),
            Event::FoundGone { record, boot } => self.found_gone(record, boot, now),
            Event::NoAnswer => self.no_answer(),
            // A report of another run would have another process.
            Event::Exited { pid, exit } if self.life.pid() == Some(pid) => self.exited(&exit, now),
            event => self.step_known(event, now),
        }
    }

    /// Events to which an unknown container reacts by the last state known.
    fn step_known(&mut self, event: Event, now: Now) -> Vec<Action> {
        if matches!(self.life, Life::Unknown(_)) {
            return self.within(|known| known.step_known(event, now));
        }
        match event {
            // Nothing that has a process is left to be changed.
            Event::Sent(Sending {
                purpose: Purpose::Kill(ticket),
                ..
            })
            | Event::Frozen(ticket, _)
            | Event::Thawed(Thaw::Request(ticket) | Thaw::Signal(Some(ticket)))
                if self.life.pid().is_none() =>
            {
                vec![Action::Answer(ticket, Outcome::Done)]
            }
            Event::Sent(_) | Event::Thawed(_) if self.life.pid().is_none() => Vec::new(),
            Event::Sent(sending) => self.sent(sending, now),
            Event::NotSent(sending, over) => self.not_sent(sending, over),
            Event::Frozen(ticket, by) => self.frozen(ticket, by),
            Event::Thawed(thaw) => self.thawed(thaw),
            Event::NotFrozen(ticket, over)
            | Event::NotThawed(Thaw::Request(ticket) | Thaw::Signal(Some(ticket)), over) => {
                let outcome = match over {
                    Over::Yes => Outcome::Refused(Refusal::NotRunning(Attempt::Pause)),
                    Over::No => Outcome::Failed,
                };
                vec![Action::Answer(ticket, outcome)]
            }
            Event::Time => self.time(now),
            _ => Vec::new(),
        }
    }

    /// When [`Event::Time`] is wanted.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let life = match &self.life {
            Life::Unknown(unknown) => &unknown.last,
            life => life,
        };
        match life {
            Life::Restarting { until } => Some(*until).filter(|until| *until != Duration::MAX),
            Life::Running { ending, .. } | Life::Paused { ending, .. } => {
                ending.as_ref().and_then(|ending| ending.next)
            }
            _ => None,
        }
    }

    /// Whether a start is under way.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.life, Life::Starting(_))
    }

    /// Whether it was removed.
    pub(crate) fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    /// Whether nothing of it may be written.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.life, Life::Dead(Dead::Document(_) | Dead::State(_)))
    }

    /// Whether what is known of it may be out of date.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.life, Life::Unknown(_))
    }

    /// What is kept on the disk.
    pub(crate) fn record(&self) -> State {
        self.record.project(&self.life)
    }

    /// What clients see.
    pub(crate) fn shown(&self) -> State {
        let mut state = self.record();
        if let Life::Unknown(Unknown { silent: true, .. }) = self.life {
            SILENT.clone_into(&mut state.error);
        }
        state
    }
}

/// What a container's `State.Error` says while its shim does not answer.
const SILENT: &str = "the container's shim does not answer; the state is the last one known";

impl Life {
    /// Docker's word for it.
    fn status(&self) -> Status {
        match self {
            Self::Created => Status::Created,
            // What an engine that is rolled back, or starts after a crash, understands.
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

    /// Its first process, while it has one.
    fn pid(&self) -> Option<i32> {
        match self {
            Self::Running { pid, .. } | Self::Paused { pid, .. } => Some(*pid),
            Self::Unknown(unknown) => unknown.last.pid(),
            _ => None,
        }
    }
}
