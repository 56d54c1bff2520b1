//! The guard of the shutdown: it feeds the watchdog during the steps of the shutdown, and ends the
//! machine by force if they take too long.
//!
//! A step may hang in the kernel (for example a sync on a disk that does not answer), so the guard
//! is a separate thread. It feeds the watchdog only as long as the steps may take: if even the end
//! by force hangs, in a driver's part of reboot(2), the watchdog resets the machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::console;
use crate::supervise::watchdog::Watchdog;

/// Longest time between two checks of the watchdog.
const TURN: Duration = Duration::from_millis(500);

/// The watchdog, shared with the guard's thread.
#[derive(Clone)]
pub(super) struct Guard(Arc<Mutex<Option<Watchdog>>>);

impl Guard {
    /// Starts the guard; it calls `hard_way` after `limit`.
    pub(super) fn start(
        watchdog: Option<Watchdog>,
        limit: Duration,
        hard_way: impl FnOnce() + Send + 'static,
    ) -> Self {
        let guard = Self(Arc::new(Mutex::new(watchdog)));
        let own = guard.clone();
        let spawned = thread::Builder::new().spawn(move || {
            own.feed_for(limit);
            hard_way();
        });
        if let Err(error) = spawned {
            console::warning(&format!("start the guard of the stop: {error}"));
        }
        guard
    }

    fn feed_for(&self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            self.feed();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(TURN));
        }
    }

    /// Feeds the watchdog when it is time. Steps may call it themselves, in case there is no
    /// thread.
    pub(super) fn feed(&self) {
        let mut watchdog = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watchdog) = &mut *watchdog {
            watchdog.feed(Duration::from_secs_f64(console::uptime().max(0.0)));
        }
    }

    /// Takes the watchdog, to stop it.
    pub(super) fn release(&self) -> Option<Watchdog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_watchdog_is_fed_until_the_limit_and_then_the_hard_way_is_taken() {
        let (mut device, ours) = UnixStream::pair().unwrap();
        let watchdog = Watchdog::on(
            std::os::fd::OwnedFd::from(ours).into(),
            Duration::from_secs(1),
        );
        let (sender, ended) = mpsc::channel();
        let start = Instant::now();
        let limit = Duration::from_millis(1800);
        // The steps hang: this thread only sleeps.
        let guard = Guard::start(Some(watchdog), limit, move || sender.send(()).unwrap());
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(start.elapsed() >= limit);
        drop(guard.release());
        let mut fed = Vec::new();
        device.read_to_end(&mut fed).unwrap();
        // With a time-out of one second it is fed twice a second, and nothing disarms it.
        assert!(fed.len() >= 3, "{fed:?}");
        assert!(fed.iter().all(|byte| *byte == 0), "{fed:?}");
    }
}
