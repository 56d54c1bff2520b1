//! A run: its start, signals, its end, and what follows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keelson_shim_protocol::Exit;

use super::policy::{self, Occasion};
use super::state::{Ending, Life, Reason, Rest, Start, Starter, Until};
use super::{
    Action, Freezer, Happening, Machine, Moment, Now, Outcome, Over, Purpose, Refusal, Sending,
    Thaw, Ticket,
};
use crate::Signal;

impl Machine {
    pub(super) fn started(&mut self, pid: i32, at: Timestamp) -> Vec<Action> {
        let running = Life::Running { pid, ending: None };
        let Some(start) = self.take_start(running) else {
            return Vec::new();
        };
        let record = &mut self.record;
        record.exit_code = 0;
        record.error.clear();
        record.oom_killed = false;
        record.started_at = Some(at);
        match start.by {
            Starter::Caller => {
                record.restart_count = 0;
                record.stopped_by_caller = false;
                self.pause = None;
            }
            Starter::Policy => record.restart_count += 1,
        }
        let mut actions = vec![
            Action::Persist,
            Action::Emit(Happening::Start),
            Action::Watch(pid),
        ];
        if start.again {
            actions.push(Action::Emit(Happening::Restart));
        }
        let answers = start.waiting.into_iter();
        actions.extend(answers.map(|ticket| Action::Answer(ticket, Outcome::Done)));
        let later = start.later.into_iter();
        actions.extend(later.map(|(ticket, ask)| Action::Again(ticket, ask)));
        actions
    }

    pub(super) fn not_started(&mut self, code: i32, error: String) -> Vec<Action> {
        let Some(start) = self.take_start(Life::Exited) else {
            return Vec::new();
        };
        if start.from == Rest::Created {
            self.life = Life::Created;
        }
        self.record.exit_code = code;
        self.record.error = error;
        // Attached clients would wait for a start that has already failed.
        let mut actions = vec![
            Action::CleanRun,
            Action::DropPending,
            Action::Notify(Moment::NotStarted),
            Action::Persist,
        ];
        let answers = start.waiting.into_iter();
        let answers = answers.map(|ticket| (ticket, Outcome::NotStarted));
        match self.rules.auto_remove {
            true => actions.extend(self.remove(answers.collect(), false)),
            false => {
                actions.extend(answers.map(|(ticket, outcome)| Action::Answer(ticket, outcome)));
            }
        }
        let later = start.later.into_iter();
        actions.extend(later.map(|(ticket, ask)| Action::Again(ticket, ask)));
        actions
    }

    /// Ends a running start.
    fn take_start(&mut self, next: Life) -> Option<Start> {
        match std::mem::replace(&mut self.life, next) {
            Life::Starting(start) => Some(start),
            other => {
                self.life = other;
                None
            }
        }
    }

    /// Whether a signal is meant to end the container.
    fn ends(&self, signal: Signal) -> bool {
        signal == Signal::KILL || signal == self.rules.stop_signal
    }

    /// The requested end, if there is a process.
    fn ending(&mut self) -> Option<&mut Option<Ending>> {
        match &mut self.life {
            Life::Running { ending, .. } | Life::Paused { ending, .. } => Some(ending),
            _ => None,
        }
    }

    pub(super) fn sent(&mut self, sending: Sending, now: Now) -> Vec<Action> {
        let Sending { signal, purpose } = sending;
        let ends = self.ends(signal);
        let mut answer = None;
        if let Purpose::Kill(ticket) = purpose {
            answer = Some(ticket);
            if ends && let Some(ending) = self.ending() {
                let ending = ending.get_or_insert_with(|| Ending::new(Reason::Kill));
                if signal == Signal::KILL {
                    ending.kill(now);
                    ending.waiting.push((ticket, Until::Ended));
                    answer = None;
                }
                self.record.stopped_by_caller = true;
            }
        }
        let mut actions = Vec::new();
        if purpose != Purpose::Removal {
            if ends || purpose == Purpose::Stop {
                actions.push(Action::Persist);
            }
            actions.push(Action::Emit(Happening::Kill(signal)));
        }
        // Frozen processes could not act upon it; SIGKILL ends them frozen.
        if matches!(self.life, Life::Paused { .. }) && ends && signal != Signal::KILL {
            actions.push(Action::Thaw(Thaw::Signal(answer)));
        } else if let Some(ticket) = answer {
            actions.push(Action::Answer(ticket, Outcome::Done));
        }
        actions
    }

    pub(super) fn not_sent(&mut self, sending: Sending, over: Over) -> Vec<Action> {
        match (sending.purpose, over) {
            (Purpose::Kill(ticket), Over::Yes) => {
                let refusal = Refusal::NotRunning(super::Attempt::Kill);
                vec![Action::Answer(ticket, Outcome::Refused(refusal))]
            }
            (Purpose::Kill(ticket), Over::No) => vec![Action::Answer(ticket, Outcome::Failed)],
            // The next step is SIGKILL, at its deadline.
            (Purpose::Stop, _) => vec![Action::Persist],
            (Purpose::Deadline | Purpose::Removal, Over::No) => vec![Action::KillLeftovers],
            (Purpose::Deadline | Purpose::Removal, Over::Yes) => Vec::new(),
        }
    }

    pub(super) fn frozen(&mut self, ticket: Ticket, by: Freezer) -> Vec<Action> {
        if let Life::Running { pid, ending } = &mut self.life {
            let (pid, ending) = (*pid, ending.take());
            self.life = Life::Paused { pid, by, ending };
        }
        vec![
            Action::Persist,
            Action::Emit(Happening::Pause),
            Action::Answer(ticket, Outcome::Done),
        ]
    }

    pub(super) fn thawed(&mut self, thaw: Thaw) -> Vec<Action> {
        if let Life::Paused { pid, ending, .. } = &mut self.life {
            let (pid, ending) = (*pid, ending.take());
            self.life = Life::Running { pid, ending };
        }
        let mut actions = vec![Action::Persist, Action::Emit(Happening::Unpause)];
        if let Thaw::Request(ticket) | Thaw::Signal(Some(ticket)) = thaw {
            actions.push(Action::Answer(ticket, Outcome::Done));
        }
        actions
    }

    pub(super) fn time(&mut self, now: Now) -> Vec<Action> {
        if self.life_deadline().is_none_or(|due| now.time < due) {
            return Vec::new();
        }
        if let Life::Restarting { .. } = self.life {
            if now.shutting_down {
                self.life = Life::Exited;
                return vec![Action::Notify(Moment::Ended), Action::Persist];
            }
            return self.start(Rest::Restarting, Starter::Policy, false, Vec::new(), now);
        }
        let Some(Some(ending)) = self.ending() else {
            return Vec::new();
        };
        if !ending.killed {
            ending.kill(now);
            return vec![Action::Send(Sending {
                signal: Signal::KILL,
                purpose: Purpose::Deadline,
            })];
        }
        // It hangs in the kernel. The work after its end is dropped, and its callers get an error.
        ending.killed = false;
        ending.next = None;
        ending.reason = ending.reason.min(Reason::Stop);
        let refused = Outcome::Refused(Refusal::Survived);
        std::mem::take(&mut ending.waiting)
            .into_iter()
            .map(|(ticket, _)| Action::Answer(ticket, refused))
            .collect()
    }

    /// Its process has ended.
    pub(super) fn ended(&mut self, exit: &Exit, occasion: Occasion, now: Now) -> Vec<Action> {
        let ending = self.ending().and_then(Option::take);
        self.record.finish(exit, now.clock);
        let mut actions = Vec::new();
        if exit.oom_killed {
            actions.push(Action::Emit(Happening::Oom));
        }
        let run = self.run_time();
        actions.push(Action::Emit(Happening::Die {
            code: exit.code,
            seconds: run.as_secs(),
        }));
        if ending.as_ref().is_some_and(|ending| ending.is_stop) {
            actions.push(Action::Emit(Happening::Stop));
        }
        actions.push(Action::Notify(Moment::Ended));
        let (reason, waiting) = match ending {
            Some(ending) => (Some(ending.reason), ending.waiting),
            None => (None, Vec::new()),
        };
        let (over, waiting): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|(_, until)| *until == Until::Ended);
        let answers = over.into_iter();
        actions.extend(answers.map(|(ticket, _)| Action::Answer(ticket, Outcome::Done)));
        self.life = Life::Exited;
        let next = self.after_end(reason, waiting, occasion, now);
        // Write after waking the callers, because they wait. Until the state is written, the shim
        // keeps its record. An automatic removal follows from either, and deletes the run's files.
        let removal = matches!(self.life, Life::Removing { .. });
        if !(removal && self.rules.auto_remove) {
            actions.push(Action::Persist);
        }
        if !removal {
            actions.push(Action::CleanRun);
        }
        actions.extend(next);
        actions
    }

    /// What follows the end of a run.
    fn after_end(
        &mut self,
        reason: Option<Reason>,
        waiting: Vec<(Ticket, Until)>,
        occasion: Occasion,
        now: Now,
    ) -> Vec<Action> {
        match reason {
            Some(Reason::Removal) => {
                // A removal overrides a restart, which is answered after the container is gone.
                let answers = waiting.into_iter().map(|(ticket, until)| match until {
                    Until::Removed => (ticket, Outcome::Done),
                    _ => (ticket, Outcome::Refused(Refusal::Gone)),
                });
                self.remove(answers.collect(), false)
            }
            Some(Reason::Restart) => {
                let waiting = waiting.into_iter().map(|(ticket, _)| ticket).collect();
                let mut actions = self.start(Rest::Exited, Starter::Caller, true, waiting, now);
                if !self.is_starting() {
                    actions.extend(self.follow_rules(true, occasion, now));
                }
                actions
            }
            reason => self.follow_rules(reason.is_some(), occasion, now),
        }
    }

    /// The decision of the container's rules after an end, or at the opening of the engine.
    pub(super) fn follow_rules(
        &mut self,
        asked_for: bool,
        occasion: Occasion,
        now: Now,
    ) -> Vec<Action> {
        let applies = occasion == Occasion::Exit || self.rules.at_opening;
        let wanted = policy::restarts(self.rules.restart, &self.record, occasion);
        if applies && wanted && !asked_for && !now.shutting_down {
            let until = match occasion {
                Occasion::Exit => {
                    let run = Duration::try_from(self.run_time()).unwrap_or_default();
                    let pause = policy::pause(self.pause, run);
                    self.pause = Some(pause);
                    now.time.saturating_add(pause)
                }
                Occasion::Opening => now.time,
            };
            self.life = Life::Restarting { until };
        } else if self.rules.auto_remove {
            return self.remove(Vec::new(), false);
        }
        Vec::new()
    }

    /// How long the last run took.
    fn run_time(&self) -> SignedDuration {
        match (self.record.started_at, self.record.finished_at) {
            (Some(started), Some(finished)) => {
                finished.duration_since(started).max(SignedDuration::ZERO)
            }
            _ => SignedDuration::ZERO,
        }
    }
}
