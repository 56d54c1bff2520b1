//! How the machine is stopped, and how a request to stop it becomes more urgent. Nothing here
//! cancels a stop.

use std::collections::VecDeque;
use std::time::Duration;

use keelson_model::init::PowerAction;

/// A second request within this time is the same one: a button that bounces, a hypervisor that
/// asks twice.
const SAME_REQUEST: Duration = Duration::from_secs(2);
/// This many presses of Ctrl-Alt-Del …
const BURST: usize = 7;
/// … within this time force the machine to restart, as with systemd.
const BURST_TIME: Duration = Duration::from_secs(2);

/// A stop that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// How the machine ends.
    pub(crate) action: PowerAction,
    /// Kill everything instead of waiting for it.
    pub(crate) forced: bool,
    /// When it was asked for first.
    since: Duration,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The orderly stop begins.
    Begun,
    /// Everything is killed from now on.
    Forced,
    /// It is the same request again.
    Unchanged,
    /// The machine already ends in another way.
    Refused(PowerAction),
}

/// Handles a request at time `now`. A second request for the same end means that the first one
/// takes too long: it forces the stop. So does `force`, which also may choose another end.
pub(crate) fn request(
    ending: &mut Option<Ending>,
    action: PowerAction,
    force: bool,
    now: Duration,
) -> Outcome {
    let Some(current) = ending else {
        *ending = Some(Ending {
            action,
            forced: force,
            since: now,
        });
        return if force {
            Outcome::Forced
        } else {
            Outcome::Begun
        };
    };
    if force {
        let known = current.forced && current.action == action;
        (current.action, current.forced) = (action, true);
        return if known {
            Outcome::Unchanged
        } else {
            Outcome::Forced
        };
    }
    if current.action != action {
        return Outcome::Refused(current.action);
    }
    if current.forced || now.saturating_sub(current.since) < SAME_REQUEST {
        return Outcome::Unchanged;
    }
    current.forced = true;
    Outcome::Forced
}

/// The last presses of Ctrl-Alt-Del.
#[derive(Debug, Default)]
pub(crate) struct Presses(VecDeque<Duration>);

impl Presses {
    /// One more press. Returns whether it completes a burst.
    pub(crate) fn pressed(&mut self, now: Duration) -> bool {
        self.0.push_back(now);
        if self.0.len() > BURST {
            self.0.pop_front();
        }
        let first = self.0.front().copied().unwrap_or(now);
        self.0.len() == BURST && now.saturating_sub(first) <= BURST_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn requests_only_become_more_urgent() {
        use PowerAction::{Poweroff, Reboot};
        let mut ending = None;
        assert_eq!(request(&mut ending, Poweroff, false, at(0)), Outcome::Begun);
        // A button that bounces does not kill containers.
        assert_eq!(
            request(&mut ending, Poweroff, false, at(500)),
            Outcome::Unchanged
        );
        let refused = Outcome::Refused(Poweroff);
        assert_eq!(request(&mut ending, Reboot, false, at(600)), refused);
        assert!(!ending.unwrap().forced);
        assert_eq!(
            request(&mut ending, Poweroff, false, at(2500)),
            Outcome::Forced
        );
        assert_eq!(
            request(&mut ending, Poweroff, false, at(9000)),
            Outcome::Unchanged
        );
        assert_eq!(
            request(&mut ending, Reboot, true, at(9001)),
            Outcome::Forced
        );
        let ending = ending.unwrap();
        assert_eq!((ending.action, ending.forced), (Reboot, true));
    }

    #[test]
    fn force_needs_no_stop_before() {
        let mut ending = None;
        let outcome = request(&mut ending, PowerAction::Halt, true, at(0));
        assert_eq!(outcome, Outcome::Forced);
        assert!(ending.unwrap().forced);
    }

    #[test]
    fn seven_presses_in_two_seconds_are_a_burst() {
        let mut presses = Presses::default();
        let slow: Vec<bool> = (0..20).map(|n| presses.pressed(at(n * 400))).collect();
        assert!(!slow.contains(&true));
        let fast: Vec<bool> = (0..7)
            .map(|n| presses.pressed(at(20_000 + n * 300)))
            .collect();
        assert_eq!(fast, [false, false, false, false, false, false, true]);
    }
}
