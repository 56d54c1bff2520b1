//! The hardware watchdog: it resets a machine whose PID 1 does not run any more
//! (`Documentation/watchdog/watchdog-api.rst`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Assumed when the driver does not report its timeout.
const USUAL_TIMEOUT: u64 = 30;

/// An open watchdog. It runs while it is open.
pub(crate) struct Watchdog {
    device: File,
    interval: Duration,
    next: Duration,
}

impl Watchdog {
    /// Opens the first watchdog that no other process uses, if the machine has one.
    pub(crate) fn open(now: Duration) -> Option<Self> {
        let path = Path::new("/dev/watchdog0");
        if !path.exists() {
            return None;
        }
        let device = OpenOptions::new().write(true).open(path).ok()?;
        let seconds = crate::files::first_line("/sys/class/watchdog/watchdog0/timeout")
            .and_then(|text| text.parse().ok())
            .unwrap_or(USUAL_TIMEOUT);
        Some(Self {
            next: now,
            ..Self::on(device, seconds)
        })
    }

    /// For an open device with this time-out in seconds. It must be fed at once.
    pub(crate) fn on(device: File, timeout: u64) -> Self {
        Self {
            device,
            interval: interval(timeout),
            next: Duration::ZERO,
        }
    }

    /// When it must be fed next.
    pub(crate) fn deadline(&self) -> Duration {
        self.next
    }

    /// Feeds it when it is time.
    pub(crate) fn feed(&mut self, now: Duration) {
        if now >= self.next {
            // A failed write is repeated in the next turn, long before the time-out.
            let _ = self.device.write_all(b"\0");
            self.next = now + self.interval;
        }
    }

    /// Stops it: a machine that is halted must stay so.
    pub(crate) fn disarm(mut self) {
        let _ = self.device.write_all(b"V");
    }
}

/// A third of the time-out: two feedings may be missed.
fn interval(timeout: u64) -> Duration {
    Duration::from_millis((timeout * 1000 / 3).max(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fed_thrice_within_the_time_out() {
        assert_eq!(interval(30), Duration::from_secs(10));
        assert_eq!(interval(1), Duration::from_millis(500));
    }
}
