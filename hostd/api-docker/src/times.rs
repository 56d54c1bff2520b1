//! Points in time and durations in Docker's spellings.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::error::ApiError;
use crate::query::Filters;

/// Docker's text for an event that never happened.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with fractions of a second, or [`NEVER`].
pub(crate) fn rfc3339(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// Reads `1700000000`, `1700000000.000000001` or RFC 3339 into nanoseconds since 1970.
///
/// # Errors
/// `InvalidInput` naming the parameter.
pub(crate) fn parse(parameter: &str, text: &str) -> Result<u64, ApiError> {
    let wrong = || {
        ApiError::invalid(format!(
            "invalid value {text:?} for query parameter {parameter}: expected seconds since 1970 or RFC 3339"
        ))
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if digits(seconds) && digits(fraction) {
        let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
        let padded: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        let nanos: u64 = padded.parse().map_err(|_| wrong())?;
        return seconds
            .checked_mul(1_000_000_000)
            .and_then(|n| n.checked_add(nanos))
            .ok_or_else(wrong);
    }
    let time: Timestamp = text.parse().map_err(|_| wrong())?;
    u64::try_from(time.as_nanosecond()).map_err(|_| wrong())
}

/// The single point in time of the filter `until`: as [`parse`] reads it, without a time zone, or
/// how long ago it was, as Go writes durations (`10m`, `1h30m`).
///
/// # Errors
/// `InvalidInput`: it has none of these forms, or there are two.
pub(crate) fn until(filters: &Filters) -> Result<Option<Timestamp>, ApiError> {
    match filters.values("until") {
        [] => Ok(None),
        [text] => Ok(before(text)?),
        _ => Err(ApiError::invalid("more than one until filter specified")),
    }
}

/// The earliest of several `until`, since all of them must hold.
///
/// # Errors
/// `InvalidInput`: one is not a time.
pub(crate) fn earliest_until(filters: &Filters) -> Result<Option<Timestamp>, ApiError> {
    let mut earliest = None;
    for text in filters.values("until") {
        let time = before(text)?;
        earliest = match earliest {
            Some(known) => time.map(|time: Timestamp| time.min(known)).or(Some(known)),
            None => time,
        };
    }
    Ok(earliest)
}

fn before(text: &str) -> Result<Option<Timestamp>, ApiError> {
    if let Ok(nanoseconds) = parse("until", text) {
        return Ok(Timestamp::from_nanosecond(nanoseconds.into()).ok());
    }
    let ago = |duration: SignedDuration| Timestamp::now().checked_sub(duration).ok();
    let in_utc = |text: &str| format!("{text}Z").parse::<Timestamp>().ok();
    text.parse()
        .ok()
        .and_then(ago)
        .or_else(|| in_utc(text))
        .or_else(|| in_utc(&format!("{text}T00:00:00")))
        .map(Some)
        .ok_or_else(|| ApiError::invalid(format!("invalid filter 'until={text}'")))
}

/// A duration in words, as `docker ps` shows it.
pub(crate) fn human_duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let minutes = seconds / 60;
    // Docker rounds hours to the nearest.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// Formats a duration like Go: `30s`, `1m30s`, `500ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let whole = duration.as_secs();
    let fraction = |unit: u32| {
        let nanoseconds = duration.subsec_nanos();
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", nanoseconds / unit, nanoseconds % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if whole == 0 {
        return match duration.subsec_nanos() {
            0 => "0s".to_owned(),
            1..1_000 => format!("{}ns", duration.subsec_nanos()),
            1_000..1_000_000 => format!("{}µs", fraction(1_000)),
            _ => format!("{}ms", fraction(1_000_000)),
        };
    }
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    let rest = Duration::new(whole % 60, duration.subsec_nanos());
    let seconds = format!("{}.{:09}", rest.as_secs(), rest.subsec_nanos());
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (milliseconds, text) in [
            (0, "0s"),
            (1, "1ms"),
            (500, "500ms"),
            (1_500, "1.5s"),
            (10_000, "10s"),
            (30_000, "30s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(go_duration(Duration::from_nanos(7)), "7ns");
    }

    #[test]
    fn times_are_read_in_both_spellings() {
        assert_eq!(parse("since", "5").unwrap(), 5_000_000_000);
        assert_eq!(parse("since", "5.25").unwrap(), 5_250_000_000);
        assert_eq!(
            parse("since", "1970-01-01T00:00:01.5Z").unwrap(),
            1_500_000_000
        );
        for bad in ["", "x", "-1", "1.", "99999999999999999999"] {
            assert!(parse("since", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn points_in_time_of_filters() {
        let read = |text: &str| {
            let mut filters = Filters::default();
            filters.add("until", text);
            until(&filters).map(Option::unwrap)
        };
        let day = "2024-05-06T00:00:00Z".parse().unwrap();
        assert_eq!(read("2024-05-06").unwrap(), day);
        assert_eq!(read("2024-05-06T00:00:00").unwrap(), day);
        assert_eq!(read("1714953600").unwrap(), day);
        let early = Timestamp::now();
        let ago = read("1h30m").unwrap() + SignedDuration::from_secs(5400);
        assert!(early <= ago && ago <= Timestamp::now());
        assert!(read("yesterday").is_err());
        assert_eq!(until(&Filters::default()).unwrap(), None);
    }

    #[test]
    fn durations_are_in_dockers_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (21 * 86400, "3 weeks"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), words);
        }
    }

    proptest! {
        #[test]
        fn any_time_is_survived(text in "[0-9.TZ:-]{0,30}") {
            let _ = parse("t", &text);
        }
    }
}
