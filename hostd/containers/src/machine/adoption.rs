//! Containers whose shim was not asked yet, or does not answer.

use keelson_shim_protocol::Exit;

use super::policy::Occasion;
use super::record::lost_exit;
use super::requests::refuse;
use super::state::{Ending, Life, Unknown};
use super::{
    Action, Alive, Ask, Attempt, Boot, Freezer, Machine, Now, Outcome, Purpose, Refusal, Sending,
    Thaw, Ticket,
};

impl Machine {
    pub(super) fn no_answer(&mut self) -> Vec<Action> {
        match &mut self.life {
            Life::Unknown(unknown) => unknown.silent = true,
            Life::Running { .. } | Life::Paused { .. } => {
                let last = std::mem::replace(&mut self.life, Life::Exited);
                self.life = Life::Unknown(Unknown {
                    last: Box::new(last),
                    silent: true,
                    opening: false,
                });
            }
            _ => {}
        }
        Vec::new()
    }

    /// Accepts the last known state as true; `None` if the state is certain and has no process.
    fn take_last(&mut self) -> Option<(Life, Occasion)> {
        match std::mem::replace(&mut self.life, Life::Exited) {
            Life::Unknown(Unknown { last, opening, .. }) => {
                let occasion = match opening {
                    true => Occasion::Opening,
                    false => Occasion::Exit,
                };
                Some((*last, occasion))
            }
            life @ (Life::Running { .. } | Life::Paused { .. }) => Some((life, Occasion::Exit)),
            other => {
                self.life = other;
                None
            }
        }
    }

    pub(super) fn exited(&mut self, exit: &Exit, now: Now) -> Vec<Action> {
        let Some((last, occasion)) = self.take_last() else {
            return Vec::new();
        };
        self.life = last;
        self.ended(exit, occasion, now)
    }

    pub(super) fn found_alive(&mut self, alive: Alive, now: Now) -> Vec<Action> {
        let before = self.record();
        let Some((last, _)) = self.take_last() else {
            return Vec::new();
        };
        // No client was told that it is paused.
        let left = alive.paused && matches!(last, Life::Running { .. });
        let (by, ending) = match last {
            Life::Running { ending, .. } => (Freezer::Commit, ending),
            Life::Paused { by, ending, .. } => (by, ending),
            _ => (Freezer::Caller, None),
        };
        // It was not known to run when all others were stopped.
        let late = now.shutting_down && ending.is_none();
        let ending = match late {
            true => Some(Ending::of_shutdown(now)),
            false => ending,
        };
        let pid = alive.pid;
        self.life = match alive.paused {
            true => Life::Paused { pid, by, ending },
            false => Life::Running { pid, ending },
        };
        let record = &mut self.record;
        record.error.clear();
        record.started_at = alive.started_at.or(record.started_at).or(Some(now.clock));
        let mut actions = vec![Action::Watch(pid)];
        if self.record() != before {
            actions.insert(0, Action::Persist);
        }
        if late {
            actions.push(Action::Send(Sending {
                signal: self.rules.stop_signal,
                purpose: Purpose::Stop,
            }));
        } else if left {
            actions.push(Action::Thaw(Thaw::Left));
        }
        actions
    }

    pub(super) fn found_gone(&mut self, record: Option<Exit>, boot: Boot, now: Now) -> Vec<Action> {
        let before = self.record();
        let Some((last, occasion)) = self.take_last() else {
            return Vec::new();
        };
        match last {
            Life::Running { .. } | Life::Paused { .. } => {
                self.life = last;
                match (record, boot) {
                    (Some(exit), _) => self.ended(&exit, occasion, now),
                    (None, Boot::Earlier) => {
                        self.ended(&lost_exit("the machine went down"), occasion, now)
                    }
                    (None, Boot::This) => {
                        let exit = lost_exit("the container's shim was killed");
                        let mut actions = vec![Action::KillLeftovers];
                        actions.extend(self.ended(&exit, occasion, now));
                        actions
                    }
                }
            }
            // The last engine was killed before it could write this start and end.
            Life::Created | Life::Exited | Life::Restarting { .. }
                if record.as_ref().is_some_and(|exit| self.record.lacks(exit)) =>
            {
                record.map_or_else(Vec::new, |exit| self.ended(&exit, occasion, now))
            }
            last => {
                // The last engine was killed before it could write this start.
                let mut actions = match (&record, boot) {
                    (None, Boot::This) => vec![Action::KillLeftovers],
                    _ => Vec::new(),
                };
                if !matches!(last, Life::Dead(_)) {
                    actions.push(Action::CleanRun);
                }
                match last {
                    Life::Created | Life::Dead(_) => self.life = last,
                    Life::Removing { .. } => actions.extend(self.remove(Vec::new(), false)),
                    _ => {
                        let next = self.follow_rules(false, occasion, now);
                        if self.record() != before && next.is_empty() {
                            actions.push(Action::Persist);
                        }
                        actions.extend(next);
                    }
                }
                actions
            }
        }
    }

    /// Handles an event like the last known state.
    pub(super) fn within(&mut self, step: impl FnOnce(&mut Self) -> Vec<Action>) -> Vec<Action> {
        let (silent, opening) = match std::mem::replace(&mut self.life, Life::Exited) {
            Life::Unknown(unknown) => {
                self.life = *unknown.last;
                (unknown.silent, unknown.opening)
            }
            known => {
                self.life = known;
                return step(self);
            }
        };
        let actions = step(self);
        // Its present state is equally unknown.
        let last = std::mem::replace(&mut self.life, Life::Exited);
        self.life = Life::Unknown(Unknown {
            last: Box::new(last),
            silent,
            opening,
        });
        actions
    }

    pub(super) fn request_of_unknown(&mut self, ticket: Ticket, ask: Ask, now: Now) -> Vec<Action> {
        let Life::Unknown(unknown) = &self.life else {
            return Vec::new();
        };
        let rests = matches!(*unknown.last, Life::Created | Life::Exited | Life::Dead(_));
        let process = unknown.last.pid().is_some();
        match ask {
            Ask::Start if rests => refuse(ticket, Refusal::MayRun(Attempt::Start)),
            Ask::Restart { .. } if !process => refuse(ticket, Refusal::MayRun(Attempt::Start)),
            Ask::Remove { force: false } if rests => {
                refuse(ticket, Refusal::MayRun(Attempt::Remove))
            }
            // Nobody knows whether it runs.
            Ask::Remove { force: true } if !process => {
                self.remove(vec![(ticket, Outcome::Done)], true)
            }
            _ => self.within(|known| known.request(ticket, ask, now)),
        }
    }
}
