//! A line as the API shows it.

use jiff::Timestamp;
use keelson_journal::{JournalBoot, StoredEntry};
use keelson_model::logs::{LogBoot, LogLine};

/// RFC 3339 with microseconds, UTC.
#[must_use]
pub fn time(nanos: u64) -> String {
    let time = Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    format!("{time:.6}")
}

/// Nanoseconds since 1970.
#[must_use]
pub fn now() -> u64 {
    u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default()
}

/// The line.
#[must_use]
pub fn line(stored: StoredEntry) -> LogLine {
    let entry = stored.entry;
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds are exact for decades"
    )]
    let uptime = (entry.uptime / 1000) as f64 / 1e6;
    LogLine {
        sequence: stored.sequence,
        time: time(entry.time),
        uptime,
        boot: entry.boot.to_string(),
        unit: entry.unit,
        priority: entry.priority,
        continues: entry.continues,
        text: entry.text,
    }
}

/// The boots, newest first. `boots` has the oldest first.
#[must_use]
pub fn boots(boots: &[JournalBoot]) -> Vec<LogBoot> {
    (0_i64..)
        .zip(boots.iter().rev())
        .map(|(number, boot)| LogBoot {
            number: -number,
            boot: boot.boot.to_string(),
            first: time(boot.earliest),
            last: time(boot.latest),
            first_sequence: boot.first,
            last_sequence: boot.last,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_microseconds() {
        assert_eq!(
            time(1_700_000_000_123_456_789),
            "2023-11-14T22:13:20.123456Z"
        );
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
    }
}
