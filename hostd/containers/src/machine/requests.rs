//! Handles requests for a container.

use std::time::Duration;

use super::state::{Dead, Ending, Life, Reason, Rest, Start, Starter, Until};
use super::{
    Action, Ask, Attempt, Freezer, Happening, Machine, Moment, Now, Outcome, Purpose, Refusal,
    Sending, Stopper, Thaw, Ticket,
};
use crate::Signal;

/// A single answer.
pub(super) fn refuse(ticket: Ticket, refusal: Refusal) -> Vec<Action> {
    vec![Action::Answer(ticket, Outcome::Refused(refusal))]
}

impl Machine {
    pub(super) fn request(&mut self, ticket: Ticket, ask: Ask, now: Now) -> Vec<Action> {
        match &mut self.life {
            Life::Starting(start) => {
                start.later.push((ticket, ask));
                Vec::new()
            }
            Life::Running { .. } | Life::Paused { .. } => self.request_of_run(ticket, ask, now),
            Life::Restarting { .. } => self.request_in_pause(ticket, ask, now),
            Life::Unknown(_) => self.request_of_unknown(ticket, ask, now),
            Life::Created => self.request_at_rest(ticket, ask, Some(Rest::Created), now),
            Life::Exited => self.request_at_rest(ticket, ask, Some(Rest::Exited), now),
            Life::Dead(_) => self.request_at_rest(ticket, ask, None, now),
            Life::Removing { .. } => match ask {
                Ask::Remove { .. } => refuse(ticket, Refusal::BeingRemoved),
                _ => self.request_at_rest(ticket, ask, None, now),
            },
            Life::Gone => refuse(ticket, Refusal::Gone),
        }
    }

    /// A request to a container without a process; `from`: the state from which it may be started,
    /// if any.
    fn request_at_rest(
        &mut self,
        ticket: Ticket,
        ask: Ask,
        from: Option<Rest>,
        now: Now,
    ) -> Vec<Action> {
        match (ask, from) {
            (Ask::Start, Some(from)) => self.start(from, Starter::Caller, false, vec![ticket], now),
            (Ask::Restart { .. }, Some(from)) => {
                self.start(from, Starter::Caller, true, vec![ticket], now)
            }
            (Ask::Start | Ask::Restart { .. }, None) => refuse(ticket, Refusal::Removable),
            (Ask::Stop { .. }, _) => refuse(ticket, Refusal::Rests),
            (Ask::Kill(_), _) => refuse(ticket, Refusal::NotRunning(Attempt::Kill)),
            (Ask::Pause(_), _) => refuse(ticket, Refusal::NotRunning(Attempt::Pause)),
            (Ask::Unpause(_), _) => refuse(ticket, Refusal::NotPaused),
            (Ask::Remove { .. }, _) => {
                let may_run = matches!(self.life, Life::Dead(Dead::Document(_)));
                self.remove(vec![(ticket, Outcome::Done)], may_run)
            }
        }
    }

    /// A request to a container that waits for a restart by its policy.
    fn request_in_pause(&mut self, ticket: Ticket, ask: Ask, now: Now) -> Vec<Action> {
        match ask {
            Ask::Start => refuse(ticket, Refusal::Runs),
            Ask::Stop { .. } | Ask::Kill(_) => {
                let by_shutdown = matches!(
                    ask,
                    Ask::Stop {
                        by: Stopper::Shutdown,
                        ..
                    }
                );
                self.record.stopped_by_caller |= !by_shutdown;
                self.life = Life::Exited;
                vec![
                    Action::Emit(Happening::Stop),
                    Action::Notify(Moment::Ended),
                    Action::Persist,
                    Action::Answer(ticket, Outcome::Done),
                ]
            }
            Ask::Restart { .. } if now.shutting_down => refuse(ticket, Refusal::ShuttingDown),
            Ask::Restart { .. } => {
                let mut actions =
                    vec![Action::Emit(Happening::Stop), Action::Notify(Moment::Ended)];
                self.life = Life::Exited;
                actions.extend(self.start(Rest::Exited, Starter::Caller, true, vec![ticket], now));
                actions
            }
            Ask::Pause(_) => refuse(ticket, Refusal::NotRunning(Attempt::Pause)),
            Ask::Unpause(_) => refuse(ticket, Refusal::NotPaused),
            Ask::Remove { force: false } => refuse(ticket, Refusal::InUse(self.life.status())),
            Ask::Remove { force: true } => self.remove(vec![(ticket, Outcome::Done)], false),
        }
    }

    /// A request to a container with a process.
    fn request_of_run(&mut self, ticket: Ticket, ask: Ask, now: Now) -> Vec<Action> {
        let status = self.life.status();
        let (frozen, ending) = match &mut self.life {
            Life::Running { ending, .. } => (None, ending),
            Life::Paused { by, ending, .. } => (Some(*by), ending),
            _ => return Vec::new(),
        };
        match ask {
            Ask::Start if frozen.is_some() => refuse(ticket, Refusal::Frozen),
            Ask::Start => refuse(ticket, Refusal::Runs),
            Ask::Stop {
                by,
                signal,
                patience,
            } => {
                let reason = match by {
                    Stopper::Caller => Reason::Stop,
                    Stopper::Shutdown => Reason::Shutdown,
                };
                Ending::wish(ending, reason, ticket, Until::Ended).stop(patience, now);
                self.record.stopped_by_caller |= by == Stopper::Caller;
                send(signal, Purpose::Stop)
            }
            Ask::Restart { signal, patience } => {
                Ending::wish(ending, Reason::Restart, ticket, Until::Started).stop(patience, now);
                self.record.stopped_by_caller = true;
                send(signal, Purpose::Stop)
            }
            Ask::Kill(signal) => send(signal, Purpose::Kill(ticket)),
            Ask::Pause(_) if frozen.is_some() => refuse(ticket, Refusal::AlreadyPaused),
            Ask::Pause(by) => vec![Action::Freeze(ticket, by)],
            // If a caller has frozen it meanwhile, the caller must thaw it.
            Ask::Unpause(Freezer::Commit) if frozen != Some(Freezer::Commit) => {
                refuse(ticket, Refusal::NotPaused)
            }
            Ask::Unpause(_) if frozen.is_none() => refuse(ticket, Refusal::NotPaused),
            Ask::Unpause(_) => vec![Action::Thaw(Thaw::Request(ticket))],
            Ask::Remove { force: false } => refuse(ticket, Refusal::InUse(status)),
            Ask::Remove { force: true } => {
                Ending::wish(ending, Reason::Removal, ticket, Until::Removed).kill(now);
                send(Signal::KILL, Purpose::Removal)
            }
        }
    }

    /// Begins a start.
    pub(super) fn start(
        &mut self,
        from: Rest,
        by: Starter,
        again: bool,
        waiting: Vec<Ticket>,
        now: Now,
    ) -> Vec<Action> {
        if now.shutting_down {
            let refused = |ticket| Action::Answer(ticket, Outcome::Refused(Refusal::ShuttingDown));
            return waiting.into_iter().map(refused).collect();
        }
        self.life = Life::Starting(Start {
            from,
            by,
            again,
            waiting,
            later: Vec::new(),
        });
        vec![Action::Spawn]
    }

    /// Starts the removal of a container; `may_run`: it may have a process.
    pub(super) fn remove(&mut self, waiting: Vec<(Ticket, Outcome)>, may_run: bool) -> Vec<Action> {
        self.life = Life::Removing { waiting };
        match may_run {
            true => vec![Action::EndShim, Action::KillLeftovers, Action::Discard],
            false => vec![Action::Discard],
        }
    }

    /// Ends a running removal.
    fn take_removal(&mut self, next: Life) -> Option<Vec<(Ticket, Outcome)>> {
        match std::mem::replace(&mut self.life, next) {
            Life::Removing { waiting } => Some(waiting),
            other => {
                self.life = other;
                None
            }
        }
    }

    pub(super) fn removed(&mut self) -> Vec<Action> {
        let Some(waiting) = self.take_removal(Life::Gone) else {
            return Vec::new();
        };
        let mut actions = vec![
            Action::Release,
            Action::Emit(Happening::Destroy),
            Action::DropPending,
            Action::Notify(Moment::Gone),
        ];
        let answers = waiting.into_iter();
        actions.extend(answers.map(|(ticket, outcome)| Action::Answer(ticket, outcome)));
        actions
    }

    pub(super) fn not_removed(&mut self, error: String) -> Vec<Action> {
        let Some(waiting) = self.take_removal(Life::Dead(Dead::Removal(error))) else {
            return Vec::new();
        };
        let mut actions = vec![Action::Notify(Moment::NotRemoved)];
        actions.extend(waiting.into_iter().map(|(ticket, outcome)| {
            let outcome = match outcome {
                Outcome::Done => Outcome::Failed,
                // It waited for something else, which failed before.
                other => other,
            };
            Action::Answer(ticket, outcome)
        }));
        actions
    }
}

fn send(signal: Signal, purpose: Purpose) -> Vec<Action> {
    vec![Action::Send(Sending { signal, purpose })]
}

impl Ending {
    pub(super) fn new(reason: Reason) -> Self {
        Self {
            reason,
            is_stop: false,
            next: None,
            killed: false,
            waiting: Vec::new(),
        }
    }

    /// Handles a container that is found running while the machine shuts down.
    pub(super) fn of_shutdown(now: Now) -> Self {
        let mut ending = Self::new(Reason::Shutdown);
        ending.stop(Some(super::KILL_TIME), now);
        ending
    }

    /// Adds a reason for the end; the strongest applies.
    fn wish(ending: &mut Option<Self>, reason: Reason, ticket: Ticket, until: Until) -> &mut Self {
        let ending = ending.get_or_insert_with(|| Self::new(reason));
        ending.reason = ending.reason.max(reason);
        ending.waiting.push((ticket, until));
        ending
    }

    /// A stop with this time limit; the shortest limit applies.
    fn stop(&mut self, patience: Option<Duration>, now: Now) {
        self.is_stop = true;
        if !self.killed {
            let wanted = patience.map(|patience| now.time.saturating_add(patience));
            self.next = [self.next, wanted].into_iter().flatten().min();
        }
    }

    /// SIGKILL was sent. Sets the deadline for its effect.
    pub(super) fn kill(&mut self, now: Now) {
        let limit = now.time.saturating_add(super::KILL_TIME);
        self.next = match (self.killed, self.next) {
            (true, Some(next)) => Some(next.min(limit)),
            _ => Some(limit),
        };
        self.killed = true;
    }
}
