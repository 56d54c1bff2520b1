//! The life of an execution, as a pure function: state × event → state and actions.
//!
//! The table is in [`super`].

/// The progress of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Not started.
    Created,
    /// About to run.
    Starting,
    /// Runs as this process on the host.
    Running(i32),
    /// Ended with this exit code, as this process; 0 when it never ran.
    Ended {
        /// Exit code.
        code: i32,
        /// Process.
        pid: i32,
    },
}

impl ExecState {
    /// Whether it has ended.
    pub(crate) const fn is_ended(self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// What happens to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecEvent {
    /// A client wants it started.
    Start,
    /// Its command was executed, as this process.
    Executed(i32),
    /// After a restart of the engine, its shim says that it runs, as this process.
    Found(i32),
    /// Its command was not executed, which counts as this exit code.
    NotExecuted(i32),
    /// Its process ended with this exit code.
    Exited(i32),
}

/// An action for the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecAction {
    /// Write the record.
    Record,
    /// Send the event `exec_start`.
    AnnounceStart,
    /// Send the event `exec_die`.
    AnnounceEnd,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecRefusal {
    /// It is running or being started.
    IsRunning,
    /// It has ended.
    HasRun,
    /// The event doesn't belong to this state: it came twice, or too late.
    OutOfTurn,
}

/// The state after an event, and the actions.
pub(crate) fn step(
    state: ExecState,
    event: ExecEvent,
) -> Result<(ExecState, &'static [ExecAction]), ExecRefusal> {
    use ExecAction::{AnnounceEnd, AnnounceStart, Record};
    use ExecState::{Created, Ended, Running, Starting};
    match (state, event) {
        (Created, ExecEvent::Start) => Ok((Starting, &[Record])),
        (Starting | Running(_), ExecEvent::Start) => Err(ExecRefusal::IsRunning),
        (Ended { .. }, ExecEvent::Start) => Err(ExecRefusal::HasRun),
        // The record says already that the shim was asked.
        (Starting, ExecEvent::Executed(pid)) => Ok((Running(pid), &[AnnounceStart])),
        // The engine before this one may have announced it.
        (Starting, ExecEvent::Found(pid)) => Ok((Running(pid), &[])),
        (Starting, ExecEvent::NotExecuted(code)) => Ok((Ended { code, pid: 0 }, &[Record])),
        (Starting, ExecEvent::Exited(code)) => Ok((Ended { code, pid: 0 }, &[Record, AnnounceEnd])),
        (Running(pid), ExecEvent::Exited(code)) => {
            Ok((Ended { code, pid }, &[Record, AnnounceEnd]))
        }
        (Created, _) | (Running(_), _) | (Ended { .. }, _) => Err(ExecRefusal::OutOfTurn),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = ExecEvent> {
        prop_oneof![
            Just(ExecEvent::Start),
            (1..9).prop_map(ExecEvent::Executed),
            (1..9).prop_map(ExecEvent::Found),
            (0..9).prop_map(ExecEvent::NotExecuted),
            (0..9).prop_map(ExecEvent::Exited),
        ]
    }

    #[test]
    fn a_start_is_refused_for_the_right_reason() {
        assert_eq!(
            step(ExecState::Starting, ExecEvent::Start),
            Err(ExecRefusal::IsRunning)
        );
        assert_eq!(
            step(ExecState::Running(1), ExecEvent::Start),
            Err(ExecRefusal::IsRunning)
        );
        let ended = ExecState::Ended { code: 0, pid: 1 };
        assert_eq!(step(ended, ExecEvent::Start), Err(ExecRefusal::HasRun));
    }

    #[test]
    fn every_state_but_the_last_has_a_way_out() {
        let exited = ExecEvent::Exited(3);
        let (state, _) = step(ExecState::Created, ExecEvent::Start).unwrap();
        assert!(step(state, exited).unwrap().0.is_ended());
        let (state, _) = step(state, ExecEvent::Executed(7)).unwrap();
        let ended = ExecState::Ended { code: 3, pid: 7 };
        assert_eq!(step(state, exited).unwrap().0, ended);
    }

    proptest! {
        /// For any order of events, it starts once, ends once, and never goes back.
        #[test]
        fn nothing_happens_twice(events in prop::collection::vec(event(), 0..30)) {
            let rank = |state| match state {
                ExecState::Created => 0,
                ExecState::Starting => 1,
                ExecState::Running(_) => 2,
                ExecState::Ended { .. } => 3,
            };
            let mut state = ExecState::Created;
            let (mut started, mut ended, mut recorded) = (0, 0, 0);
            for event in events {
                let Ok((next, actions)) = step(state, event) else {
                    continue;
                };
                prop_assert!(rank(next) > rank(state));
                for action in actions {
                    match action {
                        ExecAction::AnnounceStart => started += 1,
                        ExecAction::AnnounceEnd => ended += 1,
                        ExecAction::Record => recorded += 1,
                    }
                }
                state = next;
            }
            prop_assert!(started <= 1 && ended <= 1 && recorded <= 2);
            // A start that was announced has its end announced, too, when it comes.
            prop_assert!(!state.is_ended() || ended >= started);
        }
    }
}
