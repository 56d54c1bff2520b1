//! A clock that is plausible: not before the time at which the image was built or the machine last
//! ran, and not many years after it.
//!
//! Certificates would be "not yet valid" on a machine with an empty clock battery, and all have
//! expired on one whose clock says 2099; then not even a time server could be reached by TLS.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Seconds since 1970 in decimal, written when the image is built. The file's own time can't be
/// used: ostree sets the time of every file to 0.
const BUILD_TIME: &str = "/usr/lib/keelson/build-time";
/// A clock that is further ahead of the image is wrong, in seconds: 15 years, as systemd has it.
const MOST_AHEAD: i64 = 15 * 365 * 24 * 3600;
/// The hardware clock that the kernel reads at its start.
const HARDWARE_CLOCK: &str = "/dev/rtc0";

/// Corrects a clock that is too early or too late. Returns a note about the change, if there was
/// one.
pub(crate) fn correct() -> io::Result<Option<String>> {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    let Some(time) = plausible(now, built(), stopped()) else {
        return Ok(None);
    };
    let corrected = Timespec {
        tv_sec: time,
        tv_nsec: 0,
    };
    clock_settime(ClockId::Realtime, corrected)?;
    let (how_far, direction) = match time.checked_sub(now) {
        Some(behind) if behind > 0 => (behind, "behind the last known time and was moved forward"),
        _ => (
            now.saturating_sub(time),
            "ahead of the last known time and was moved back",
        ),
    };
    Ok(Some(format!("clock was {how_far} s {direction}")))
}

/// Sets the hardware clock, so that the next boot begins with the time of this one. The kernel does
/// that only while a time server is in reach. Returns a problem, if there is one.
pub(crate) fn save() -> Option<String> {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    if !Path::new(HARDWARE_CLOCK).exists() || plausible(now, built(), None).is_some() {
        return None;
    }
    let clock = match fs::File::open(HARDWARE_CLOCK) {
        Ok(clock) => clock,
        Err(error) => return Some(format!("open {HARDWARE_CLOCK}: {error}")),
    };
    keelson_sys::rtc::set(&clock, now)
        .err()
        .map(|error| format!("set {HARDWARE_CLOCK}: {error}"))
}

fn built() -> Option<i64> {
    crate::files::first_line(BUILD_TIME).and_then(|text| text.parse().ok())
}

/// When the machine was stopped last.
fn stopped() -> Option<i64> {
    fs::metadata(super::seed::FILE).ok().map(|m| m.mtime())
}

/// The time to set, if `now` can't be right.
fn plausible(now: i64, built: Option<i64>, stopped: Option<i64>) -> Option<i64> {
    let latest = built.map_or(i64::MAX, |built| built.saturating_add(MOST_AHEAD));
    // A machine that ran with a wrong clock was stopped in the future, too.
    let earliest = built.max(stopped.filter(|stopped| *stopped <= latest));
    earliest.filter(|earliest| now < *earliest || now > latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_before_the_last_known_time() {
        assert_eq!(plausible(100, Some(50), Some(60)), None);
        assert_eq!(plausible(10, Some(50), Some(60)), Some(60));
        assert_eq!(plausible(10, Some(50), None), Some(50));
        assert_eq!(plausible(10, None, Some(60)), Some(60));
        assert_eq!(plausible(10, None, None), None);
    }

    #[test]
    fn not_many_years_after_it() {
        let built = 1_790_000_000;
        let year = 365 * 24 * 3600;
        assert_eq!(plausible(built + 14 * year, Some(built), None), None);
        let far = built + 70 * year;
        assert_eq!(plausible(far, Some(built), None), Some(built));
        let ran = built + 2 * year;
        assert_eq!(plausible(far, Some(built), Some(ran)), Some(ran));
        // The stop happened under the wrong clock.
        assert_eq!(plausible(far, Some(built), Some(far - 5)), Some(built));
        assert_eq!(plausible(built + 1, Some(built), Some(far)), None);
        assert_eq!(plausible(i64::MAX, Some(i64::MAX - 5), None), None);
    }
}
