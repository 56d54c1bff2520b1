//! Points in time as text.

use keelson_sys::calendar::Calendar;

/// Seconds since 1970 as RFC 3339 in UTC. A time after the year 9999 has no such text, and becomes
/// the beginning of 1970.
pub(super) fn rfc3339(seconds: u64) -> String {
    let beginning = Calendar {
        year: 1970,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
    };
    let known = i64::try_from(seconds).ok().and_then(Calendar::of);
    let time = known.unwrap_or(beginning);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year, time.month, time.day, time.hour, time.minute, time.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_222_800), "2026-11-21T01:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }
}
