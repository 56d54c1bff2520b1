//! When a service that ended is started again, and whether it loops. Pure.

use std::time::Duration;

/// Pause before the first further start. Each failure in a row doubles it.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A run that lasted so long counts as a success.
pub const SETTLED: Duration = Duration::from_secs(10);
/// So many short runs in a row mean that a service loops.
const LOOP: u32 = 3;

/// The failures of a service in a row: runs that ended soon, and starts that did not succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    failures: u32,
    failed_starts: u32,
}

impl Streak {
    /// A run has ended after this time. Returns the pause before the next start.
    pub fn ended(&mut self, ran: Duration) -> Duration {
        match ran < SETTLED {
            true => self.failures = self.failures.saturating_add(1),
            false => self.failures = 1,
        }
        self.failed_starts = 0;
        self.pause()
    }

    /// It could not be started. Returns the pause before the next attempt.
    pub fn not_started(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.failed_starts = self.failed_starts.saturating_add(1);
        self.pause()
    }

    fn pause(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        (FIRST * (1 << doublings)).min(LONGEST)
    }

    /// Whether it fails again and again, if its present run began so long ago.
    pub fn is_failing(&self, running: Option<Duration>) -> bool {
        let loops = self.failures >= LOOP || self.failed_starts > 0;
        loops && running.is_none_or(|running| running < SETTLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut streak = Streak::default();
        let pauses: Vec<u128> = (0..12)
            .map(|_| streak.ended(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(pauses[..4], [200, 400, 800, 1600]);
        assert_eq!(pauses[11], 60_000);
        for _ in 0..100 {
            assert_eq!(streak.not_started(), LONGEST);
        }
        // One long run is enough to forget.
        assert_eq!(streak.ended(SETTLED), FIRST);
        assert!(!streak.is_failing(None));
    }

    #[test]
    fn a_loop_is_seen_and_ends_when_a_run_lasts() {
        let mut streak = Streak::default();
        for _ in 0..2 {
            streak.ended(Duration::from_secs(1));
            assert!(!streak.is_failing(Some(Duration::ZERO)));
        }
        streak.ended(Duration::from_secs(1));
        assert!(streak.is_failing(None));
        assert!(streak.is_failing(Some(Duration::from_secs(9))));
        assert!(!streak.is_failing(Some(SETTLED)));
        // A start that does not succeed is a failure at once.
        let mut streak = Streak::default();
        streak.not_started();
        assert!(streak.is_failing(None));
    }
}
