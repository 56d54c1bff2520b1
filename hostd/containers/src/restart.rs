//! Restart policies: whether and when a container that ended is started again.

use std::time::Duration;

use keelson_model::spec::RestartPolicy;

use crate::types::State;

/// Pause before the first restart; it doubles from one to the next.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A run that lasted so long counts as a success, and the pause starts from [`FIRST`] again.
const SETTLED: Duration = Duration::from_secs(10);

/// Why the question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Its process has just ended.
    Exit {
        /// A caller asked for the end.
        asked_for: bool,
    },
    /// The engine was opened and found it ended.
    Open,
}

/// Whether the policy starts the container again.
pub(crate) fn should_restart(policy: RestartPolicy, state: &State, occasion: Occasion) -> bool {
    // What was only created is not started by the policy.
    if occasion == (Occasion::Exit { asked_for: true }) || state.started_at.is_none() {
        return false;
    }
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !state.stopped_by_caller,
        RestartPolicy::OnFailure { attempts } => {
            let left = attempts.is_none_or(|attempts| state.restart_count < attempts);
            // At opening, a failure that a caller caused by a stop is none.
            let failed =
                state.exit_code != 0 && !(occasion == Occasion::Open && state.stopped_by_caller);
            failed && left
        }
    }
}

/// The pause before the next restart, from the previous one and how long the last run lasted.
pub(crate) fn pause(previous: Option<Duration>, run: Duration) -> Duration {
    match previous {
        Some(previous) if run < SETTLED => (previous * 2).min(LONGEST),
        _ => FIRST,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const ON_FAILURE: RestartPolicy = RestartPolicy::OnFailure { attempts: None };

    fn at_most(attempts: u32) -> RestartPolicy {
        RestartPolicy::OnFailure {
            attempts: Some(attempts),
        }
    }

    fn state(exit_code: i32) -> State {
        State {
            exit_code,
            started_at: Some(Timestamp::UNIX_EPOCH),
            ..State::default()
        }
    }

    const EXIT: Occasion = Occasion::Exit { asked_for: false };
    const STOPPED: Occasion = Occasion::Exit { asked_for: true };

    #[test]
    fn policies() {
        assert!(!should_restart(RestartPolicy::Never, &state(1), EXIT));
        assert!(should_restart(RestartPolicy::Always, &state(0), EXIT));
        assert!(!should_restart(RestartPolicy::Always, &state(0), STOPPED));
        assert!(should_restart(ON_FAILURE, &state(1), EXIT));
        assert!(!should_restart(ON_FAILURE, &state(0), EXIT));
        let tried = State {
            restart_count: 3,
            ..state(1)
        };
        assert!(!should_restart(at_most(3), &tried, EXIT));
        assert!(should_restart(at_most(4), &tried, EXIT));
    }

    #[test]
    fn at_opening() {
        let stopped = State {
            stopped_by_caller: true,
            ..state(137)
        };
        assert!(should_restart(
            RestartPolicy::Always,
            &stopped,
            Occasion::Open
        ));
        assert!(!should_restart(
            RestartPolicy::UnlessStopped,
            &stopped,
            Occasion::Open
        ));
        assert!(!should_restart(ON_FAILURE, &stopped, Occasion::Open));
        assert!(should_restart(
            RestartPolicy::UnlessStopped,
            &state(0),
            Occasion::Open
        ));
        let never = State::default();
        assert!(!should_restart(
            RestartPolicy::Always,
            &never,
            Occasion::Open
        ));
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let short = Duration::from_millis(5);
        let mut last = pause(None, short);
        assert_eq!(last, FIRST);
        for _ in 0..20 {
            let next = pause(Some(last), short);
            assert!(next >= last && next <= LONGEST);
            last = next;
        }
        assert_eq!(last, LONGEST);
        assert_eq!(pause(Some(last), SETTLED), FIRST);
    }
}
