//! Restart policies: whether and when a container that ended is started again.

use std::time::Duration;

use keelson_model::spec::RestartPolicy;

use super::Record;

/// Pause before the first restart; it doubles from one to the next.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A run that lasted so long counts as a success, and the pause starts from [`FIRST`] again.
const SETTLED: Duration = Duration::from_secs(10);

/// Why the question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Its process has just ended by itself.
    Exit,
    /// The engine was opened and found it ended.
    Opening,
}

/// Whether the policy starts the container again. Do not ask for a requested end, which never
/// causes a restart.
pub(super) fn restarts(policy: RestartPolicy, record: &Record, occasion: Occasion) -> bool {
    // The policy does not start a container that was only created.
    if record.started_at.is_none() {
        return false;
    }
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !record.stopped_by_caller,
        RestartPolicy::OnFailure { attempts } => {
            let left = attempts.is_none_or(|attempts| record.restart_count < attempts);
            // At opening, a failure that was caused by a stop does not count.
            let caused = occasion == Occasion::Opening && record.stopped_by_caller;
            record.exit_code != 0 && !caused && left
        }
    }
}

/// The pause before the next restart, from the previous one and how long the last run lasted.
pub(super) fn pause(previous: Option<Duration>, run: Duration) -> Duration {
    match previous {
        Some(previous) if run < SETTLED => (previous * 2).min(LONGEST),
        _ => FIRST,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Occasion::{Exit, Opening};
    use super::*;

    const THREE: RestartPolicy = RestartPolicy::OnFailure { attempts: Some(3) };

    fn ended(exit_code: i32) -> Record {
        Record {
            exit_code,
            started_at: Some(Timestamp::UNIX_EPOCH),
            ..Record::default()
        }
    }

    #[test]
    fn after_an_exit() {
        let any = RestartPolicy::OnFailure { attempts: None };
        assert!(!restarts(RestartPolicy::Never, &ended(1), Exit));
        assert!(restarts(RestartPolicy::Always, &ended(0), Exit));
        assert!(restarts(any, &ended(1), Exit));
        assert!(!restarts(any, &ended(0), Exit));
        let tried = Record {
            restart_count: 3,
            ..ended(1)
        };
        assert!(!restarts(THREE, &tried, Exit));
        let four = RestartPolicy::OnFailure { attempts: Some(4) };
        assert!(restarts(four, &tried, Exit));
    }

    #[test]
    fn at_opening() {
        let stopped = Record {
            stopped_by_caller: true,
            ..ended(137)
        };
        assert!(restarts(RestartPolicy::Always, &stopped, Opening));
        assert!(!restarts(RestartPolicy::UnlessStopped, &stopped, Opening));
        assert!(!restarts(THREE, &stopped, Opening));
        assert!(restarts(RestartPolicy::UnlessStopped, &ended(0), Opening));
        let never = Record::default();
        assert!(!restarts(RestartPolicy::Always, &never, Opening));
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
