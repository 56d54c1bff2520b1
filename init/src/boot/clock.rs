//! A clock that is not before the time at which the image was built or the machine last ran.
//! Certificates would be "not yet valid" on a machine with an empty clock battery.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Seconds since 1970 in decimal, written when the image is built. The file's own time can't be
/// used: ostree sets the time of every file to 0.
const BUILD_TIME: &str = "/usr/lib/keelson/build-time";

/// Moves the clock forward if it is too early. Returns a note about the change, if there was one.
pub(crate) fn advance() -> io::Result<Option<String>> {
    let built = crate::files::first_line(BUILD_TIME).and_then(|text| text.parse::<i64>().ok());
    // Written when the machine was stopped last.
    let stopped = fs::metadata(super::seed::FILE).ok().map(|m| m.mtime());
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    let Some(earliest) = too_early(now, built, stopped) else {
        return Ok(None);
    };
    let time = Timespec {
        tv_sec: earliest,
        tv_nsec: 0,
    };
    clock_settime(ClockId::Realtime, time)?;
    Ok(Some(format!(
        "clock was {} s behind the last known time and was moved forward",
        earliest.saturating_sub(now)
    )))
}

/// The time to set, if `now` lies before any of the known times.
fn too_early(now: i64, built: Option<i64>, stopped: Option<i64>) -> Option<i64> {
    built.max(stopped).filter(|earliest| now < *earliest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ever_forward() {
        assert_eq!(too_early(100, Some(50), Some(60)), None);
        assert_eq!(too_early(10, Some(50), Some(60)), Some(60));
        assert_eq!(too_early(10, Some(50), None), Some(50));
        assert_eq!(too_early(10, None, None), None);
    }
}
