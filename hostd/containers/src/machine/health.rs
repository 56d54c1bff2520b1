//! Health of a container, as a pure part of its machine: the times of checks, and the meaning of
//! results.
//!
//! | health | a check is due | healthy | failed, in the start period | failed | not probed any more |
//! |---|---|---|---|---|---|
//! | starting | probe | **healthy** | – | streak + 1; **unhealthy** at the limit | **unhealthy** |
//! | healthy | probe | – | streak + 1; **unhealthy** at the limit | streak + 1; **unhealthy** at the limit | **unhealthy** |
//! | unhealthy | probe | **healthy** | streak + 1 | streak + 1 | – |
//!
//! A check starts one interval after the last one has ended, so that slow checks never pile up. The
//! first one starts one interval after the container. When a container ends or is frozen, its check
//! ends.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{CheckRules, Now};
use crate::types::health::{CheckOutcome, CheckResult, Health, HealthStatus};

/// How many results are kept.
const KEPT: usize = 5;
/// How long results are not stored that change neither the status nor the number of failures.
const UNSTORED: Duration = Duration::from_secs(10);

/// The number of the running check. Results of other checks are outdated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckNumber(u64);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// The container is not checked.
    #[default]
    Idle,
    /// The next check is due at this time.
    Waiting(Duration),
    Checking(CheckNumber),
}

/// What a result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Whether the status is another one now.
    pub(super) changed: bool,
    /// Whether the health is to be stored.
    pub(super) store: bool,
}

/// The health part of a machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Monitor {
    /// `None` before the first run.
    pub(super) health: Option<Arc<Health>>,
    phase: Phase,
    last: u64,
    /// When a result was stored last.
    stored: Option<Duration>,
}

impl Monitor {
    /// A run has started.
    pub(super) fn start(&mut self, check: CheckRules, now: Now) {
        self.health = Some(Arc::default());
        self.resume(check, Some(now.clock), now);
    }

    /// Checks continue, after the container was frozen, its shim did not answer, or the engine was
    /// opened.
    pub(super) fn resume(&mut self, check: CheckRules, started: Option<Timestamp>, now: Now) {
        self.health.get_or_insert_default();
        self.phase = Phase::Waiting(
            now.time
                .saturating_add(self.pause(check, started, now.clock)),
        );
    }

    /// Stops the checks, and returns the number of the running one. `verdict`: whether the
    /// container now counts as unhealthy because it can't be checked.
    pub(super) fn suspend(&mut self, verdict: bool) -> Option<CheckNumber> {
        if verdict
            && let Some(health) = &mut self.health
            && health.status != HealthStatus::Unhealthy
        {
            Arc::make_mut(health).status = HealthStatus::Unhealthy;
        }
        match std::mem::take(&mut self.phase) {
            Phase::Checking(number) => Some(number),
            _ => None,
        }
    }

    /// Takes over the health that an earlier engine has stored.
    pub(super) fn restore(&mut self, health: Option<Health>) {
        self.health = health.map(Arc::new);
    }

    /// When the next check is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting(due) => Some(due),
            _ => None,
        }
    }

    /// Time has passed. Returns the check that is due.
    pub(super) fn due(&mut self, now: Now) -> Option<CheckNumber> {
        if self.deadline().is_none_or(|due| now.time < due) {
            return None;
        }
        // All containers will be stopped.
        if now.shutting_down {
            self.phase = Phase::Idle;
            return None;
        }
        self.last += 1;
        let number = CheckNumber(self.last);
        self.phase = Phase::Checking(number);
        Some(number)
    }

    /// A check has ended. `None`: it is not the running one.
    pub(super) fn checked(
        &mut self,
        number: CheckNumber,
        result: CheckResult,
        check: CheckRules,
        started: Option<Timestamp>,
        now: Now,
    ) -> Option<Meaning> {
        if self.phase != Phase::Checking(number) {
            return None;
        }
        let health = Arc::make_mut(self.health.get_or_insert_default());
        let (before, streak) = (health.status, health.failing_streak);
        if result.outcome == (CheckOutcome::Exited { code: 0 }) {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting
            || !within(check.start_period, started, result.start)
        {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= check.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        let changed = health.status != before;
        let due = (self.stored).is_none_or(|stored| now.time >= stored.saturating_add(UNSTORED));
        let store = changed || health.failing_streak != streak || due;
        if store {
            self.stored = Some(now.time);
        }
        while health.log.len() >= KEPT {
            health.log.pop_front();
        }
        health.log.push_back(result);
        self.phase = Phase::Waiting(
            now.time
                .saturating_add(self.pause(check, started, now.clock)),
        );
        Some(Meaning { changed, store })
    }

    /// The time until the next check.
    fn pause(&self, check: CheckRules, started: Option<Timestamp>, now: Timestamp) -> Duration {
        let starting = self
            .health
            .as_ref()
            .is_none_or(|health| health.status == HealthStatus::Starting);
        match starting && within(check.start_period, started, now) {
            true => check.start_interval,
            false => check.interval,
        }
    }
}

/// Whether a moment is in the start period.
fn within(period: Duration, started: Option<Timestamp>, at: Timestamp) -> bool {
    let Some(started) = started else {
        return false;
    };
    let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
    at.duration_since(started) < period
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::at;

    const SECOND: Duration = Duration::from_secs(1);

    fn check() -> CheckRules {
        CheckRules {
            interval: 10 * SECOND,
            retries: 2,
            start_period: 20 * SECOND,
            start_interval: 3 * SECOND,
        }
    }

    fn result(seconds: u64, outcome: CheckOutcome) -> CheckResult {
        CheckResult {
            start: at(seconds).clock,
            end: at(seconds).clock,
            outcome,
            output: String::new(),
        }
    }

    /// Starts the due check and reports its result. Returns the time of the next one.
    fn round(monitor: &mut Monitor, code: i32) -> (HealthStatus, u32, u64) {
        let due = monitor.deadline().unwrap().as_secs();
        assert_eq!(monitor.due(at(due - 1)), None, "it comes early");
        let number = monitor.due(at(due)).unwrap();
        assert_eq!(monitor.deadline(), None, "no second one beside it");
        let started = Some(at(0).clock);
        let result = result(due, CheckOutcome::Exited { code });
        monitor.checked(number, result, check(), started, at(due));
        let health = monitor.health.as_ref().unwrap();
        let next = monitor.deadline().unwrap().as_secs() - due;
        (health.status, health.failing_streak, next)
    }

    fn started() -> Monitor {
        let mut monitor = Monitor::default();
        assert_eq!(monitor.health, None);
        monitor.start(check(), at(0));
        monitor
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_a_success() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let mut monitor = started();
        assert_eq!(monitor.deadline(), Some(3 * SECOND));
        for _ in 0..4 {
            assert_eq!(round(&mut monitor, 1), (Starting, 0, 3));
        }
        // A success ends the period early. From then on the long interval applies, and all failures
        // count.
        assert_eq!(round(&mut monitor, 0), (Healthy, 0, 10));
        let mut early = monitor.clone();
        assert_eq!(round(&mut early, 1), (Healthy, 1, 10));
        assert_eq!(round(&mut early, 1), (Unhealthy, 2, 10));
        assert_eq!(round(&mut early, 1), (Unhealthy, 3, 10));
        assert_eq!(round(&mut early, 0), (Healthy, 0, 10));
    }

    #[test]
    fn after_the_start_period_failures_count() {
        let mut monitor = started();
        for _ in 0..6 {
            assert_eq!(round(&mut monitor, 1).1, 0);
        }
        // The one at 21 s.
        assert_eq!(round(&mut monitor, 1), (HealthStatus::Starting, 1, 10));
        assert_eq!(round(&mut monitor, 1), (HealthStatus::Unhealthy, 2, 10));
        assert_eq!(monitor.health.unwrap().log.len(), 5);
    }

    #[test]
    fn late_results_change_nothing() {
        let mut monitor = started();
        let number = monitor.due(at(3)).unwrap();
        assert_eq!(monitor.suspend(true), Some(number));
        assert_eq!(monitor.suspend(true), None);
        let late = monitor.checked(
            number,
            result(4, CheckOutcome::Exited { code: 0 }),
            check(),
            None,
            at(4),
        );
        assert_eq!(late, None);
        let health = monitor.health.clone().unwrap();
        assert_eq!(health.status, HealthStatus::Unhealthy);
        assert!(health.log.is_empty());
        // It continues one interval later.
        monitor.resume(check(), Some(at(0).clock), at(5));
        assert_eq!(monitor.deadline(), Some(15 * SECOND));
        assert_eq!(round(&mut monitor, 0).0, HealthStatus::Healthy);
    }

    #[test]
    fn a_check_that_took_too_long_is_a_failure() {
        let mut monitor = started();
        monitor.resume(check(), None, at(0));
        let number = monitor.due(at(10)).unwrap();
        let changed = monitor.checked(
            number,
            result(10, CheckOutcome::TimedOut),
            check(),
            None,
            at(11),
        );
        let meaning = Meaning {
            changed: false,
            store: true,
        };
        assert_eq!(changed, Some(meaning));
        assert_eq!(monitor.health.unwrap().failing_streak, 1);
    }

    #[test]
    fn results_that_change_nothing_are_stored_now_and_then() {
        let every_second = CheckRules {
            interval: SECOND,
            retries: 100,
            start_period: Duration::ZERO,
            ..check()
        };
        let mut monitor = Monitor::default();
        monitor.start(every_second, at(0));
        let mut stored = Vec::new();
        for second in 1..30 {
            let number = monitor.due(at(second)).unwrap();
            let code = i32::from(second == 17 || second == 18);
            let result = result(second, CheckOutcome::Exited { code });
            let meaning = monitor.checked(number, result, every_second, None, at(second));
            if meaning.unwrap().store {
                stored.push(second);
            }
        }
        // The first success, one of those after it, two failures, their end, and one more.
        assert_eq!(stored, [1, 11, 17, 18, 19, 29]);
    }
}
