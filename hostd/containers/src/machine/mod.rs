//! The life of a container, as a pure state machine.
//!
//! The machine takes events (requests, reports of effects and of the shim, the passing of time)
//! and returns the effects to carry out, in order. It does no I/O and reads no clock. The driver
//! (`crate::life`) steps it under the container's lock and reports back what its effects did.
//!
//! In the table, each cell has the effects, and after `→` the next state. `–`: nothing happens. A
//! phrase in parentheses is a refusal. `later`: the request is kept and handled when the start has
//! reported, so that nothing is done with a half-started container.
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
//! - **`Running` and `Paused` may carry an `Ending`**: the reason of the end and what follows it
//!   (rest, another start, removal). If there are several, the strongest reason and the earliest
//!   deadline apply. At the deadline SIGKILL is sent. If that does not help within ten seconds, the
//!   waiting callers get an error.
//! - **The end of a run** is sent (`die`) before it is written: until then the shim's record has
//!   it. Next comes a requested removal or start; else the restart policy; else automatic removal;
//!   else `Exited`.
//! - **`Unknown`** keeps the last state known. Requests that only need the last known state are
//!   handled as in that state. A start, or a removal that might forget a running process, is not.
//! - **Time** is one event. [`Machine::deadline`] says when it is due next. If it comes early, it
//!   does nothing, so a timer that was not stopped in time does no harm.
//! - **Health** follows the life: [`health`] has its table. It is checked only while the container
//!   is known to run.

mod adoption;
mod event;
mod health;
mod policy;
mod record;
mod requests;
mod run;
mod state;

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::sync::Arc;
use std::time::Duration;

use keelson_model::spec::{HealthCheck, RestartPolicy};

pub(crate) use self::event::{
    Action, Alive, Ask, Attempt, Boot, Event, Freezer, Happening, Moment, Now, Outcome, Over,
    Purpose, Refusal, Sending, Stopper, Thaw, Ticket,
};
pub(crate) use self::health::CheckNumber;
use self::health::Monitor;
pub(crate) use self::record::{Found, Record, lost_exit};
use self::state::{Dead, Life, Unknown};
use crate::Signal;
use crate::types::State;
use crate::types::health::{CheckResult, Health, HealthStatus};

/// How long processes may take to end after SIGKILL. If they take longer, they hang in the kernel.
pub(crate) const KILL_TIME: Duration = Duration::from_secs(10);

/// The part of a container's specification about its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) restart: RestartPolicy,
    /// Removed at the end of its run.
    pub(crate) auto_remove: bool,
    /// The signal that asks for the end.
    pub(crate) stop_signal: Signal,
    /// Whether the policy also applies when the engine is opened: services of the host are started
    /// by their manager.
    pub(crate) at_opening: bool,
    /// When its health is checked; `None`: never.
    pub(crate) health: Option<CheckRules>,
}

/// When a container's health is checked, and how failures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckRules {
    pub(crate) interval: Duration,
    /// Failures in a row that mean unhealthy.
    pub(crate) retries: u32,
    /// The start period, in which failures don't count until the first success.
    pub(crate) start_period: Duration,
    /// The interval during the start period.
    pub(crate) start_interval: Duration,
}

impl From<&HealthCheck> for CheckRules {
    fn from(check: &HealthCheck) -> Self {
        Self {
            interval: check.interval,
            retries: check.retries,
            start_period: check.start_period,
            start_interval: check.start_interval,
        }
    }
}

/// A container's life, and the record of its last run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    life: Life,
    record: Record,
    rules: Rules,
    monitor: Monitor,
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
            monitor: Monitor::default(),
            pause: None,
        }
    }

    /// The rules were changed.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Handles an event, and returns the actions in order.
    pub(crate) fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        let starts = matches!(event, Event::Started { .. });
        let before = self.life.checked();
        let mut actions = self.live(event, now);
        self.follow_life(before, starts, now, &mut actions);
        actions
    }

    fn live(&mut self, event: Event, now: Now) -> Vec<Action> {
        match event {
            Event::Request(ticket, ask) => self.request(ticket, ask, now),
            Event::Started { pid, at } => self.started(pid, at),
            Event::NotStarted { code, error } => self.not_started(code, error),
            Event::Removed => self.removed(),
            Event::NotRemoved { error } => self.not_removed(error),
            Event::FoundAlive(alive) => self.found_alive(alive, now),
            Event::FoundGone { record, boot } => self.found_gone(record, boot, now),
            Event::NoAnswer => self.no_answer(),
            // Ignore the report of another run, which has another process.
            Event::Exited { pid, exit } if self.life.pid() == Some(pid) => self.exited(&exit, now),
            Event::Checked(number, result) => self.checked(number, result, now),
            event => self.step_known(event, now),
        }
    }

    /// Events to which an unknown container reacts like its last known state.
    fn step_known(&mut self, event: Event, now: Now) -> Vec<Action> {
        if matches!(self.life, Life::Unknown(_)) {
            return self.within(|known| known.step_known(event, now));
        }
        match event {
            // Without a process there is nothing to change.
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
            Event::Time => {
                let mut actions = self.time(now);
                if self.life.checked().is_some()
                    && let Some(number) = self.monitor.due(now)
                {
                    actions.push(Action::Check(number));
                }
                actions
            }
            _ => Vec::new(),
        }
    }

    /// When [`Event::Time`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let next = [self.life_deadline(), self.monitor.deadline()];
        next.into_iter().flatten().min()
    }

    /// When its next deadline is due.
    fn life_deadline(&self) -> Option<Duration> {
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

    /// It is checked while it is known to run.
    fn follow_life(
        &mut self,
        before: Option<i32>,
        starts: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        let Some(check) = self.rules.health else {
            return;
        };
        match (before, self.life.checked()) {
            (None, Some(_)) if starts => {
                self.monitor.start(check, now);
                actions.push(Action::KeepHealth);
            }
            (None, Some(_)) => self.monitor.resume(check, self.record.started_at, now),
            (before, None) => {
                // While its state is unknown, its health is the last known one. A commit freezes it
                // for a moment, which does not affect its health.
                let for_commit = matches!(
                    self.life,
                    Life::Paused {
                        by: Freezer::Commit,
                        ..
                    }
                );
                let verdict = !self.is_unknown() && !for_commit;
                if let Some(number) = self.monitor.suspend(verdict) {
                    actions.push(Action::EndCheck(number));
                }
                if verdict && before.is_some() && self.life.pid().is_some() {
                    actions.push(Action::KeepHealth);
                }
            }
            (Some(_), Some(_)) => {}
        }
    }

    /// The health that an earlier engine knew. Nothing was stored about an ended run.
    pub(crate) fn restore_health(&mut self, kept: Option<Health>) {
        let over = || {
            let ran = self.record.started_at.is_some() && self.life.pid().is_none();
            ran.then(|| Health {
                status: HealthStatus::Unhealthy,
                ..Health::default()
            })
        };
        let health = kept.or_else(over);
        self.monitor.restore(health);
    }

    fn checked(&mut self, number: CheckNumber, result: CheckResult, now: Now) -> Vec<Action> {
        let Some(check) = self.rules.health else {
            return Vec::new();
        };
        let started = self.record.started_at;
        let mut actions = Vec::new();
        if let Some(meaning) = self.monitor.checked(number, result, check, started, now) {
            if meaning.store {
                actions.push(Action::KeepHealth);
            }
            if let (true, Some(health)) = (meaning.changed, &self.monitor.health) {
                actions.push(Action::Emit(Happening::Health(health.status)));
            }
        }
        actions
    }

    /// Its health; `None` when it is not checked, or never ran.
    pub(crate) fn health(&self) -> Option<Arc<Health>> {
        self.rules.health?;
        self.monitor.health.clone()
    }

    /// Whether a start is running.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.life, Life::Starting(_))
    }

    /// Whether it was removed.
    pub(crate) fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    /// Whether none of its files may be written.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.life, Life::Dead(Dead::Document(_) | Dead::State(_)))
    }

    /// Whether the known state may be out of date.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.life, Life::Unknown(_))
    }

    /// The known state.
    pub(crate) fn record(&self) -> State {
        self.record.project(&self.life)
    }

    /// The state for the disk. A container that is frozen only for a commit counts as running.
    pub(crate) fn kept(&self) -> State {
        let life = match &self.life {
            Life::Unknown(unknown) => &*unknown.last,
            life => life,
        };
        match *life {
            Life::Paused {
                pid,
                by: Freezer::Commit,
                ..
            } => self.record.project(&Life::Running { pid, ending: None }),
            _ => self.record(),
        }
    }

    /// The state for clients.
    pub(crate) fn shown(&self) -> State {
        let mut state = self.record();
        if let Life::Unknown(Unknown { silent: true, .. }) = self.life {
            SILENT.clone_into(&mut state.error);
        }
        state
    }
}

/// A container's `State.Error` while its shim does not answer.
const SILENT: &str = "the container's shim does not answer; the state is the last one known";
