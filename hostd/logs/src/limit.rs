//! How much a unit may write: a burst, and what comes after it slowly enough for any disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keelson_journal::JournalEntry;
use keelson_model::logs::LogPriority;

/// Bytes that a unit may write at once.
const BURST: u64 = 8 << 20;
/// Bytes that it may write in each second from then on.
const RATE: u64 = 512 << 10;
/// What a line costs beside its text.
const LINE: u64 = 100;
/// How often a unit that is over its limit is told about.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The limits of all units.
#[derive(Default)]
pub(crate) struct Limits {
    units: BTreeMap<String, Bucket>,
    /// Lines that were left out.
    pub(crate) suppressed: u64,
}

struct Bucket {
    left: u64,
    filled: Instant,
    /// Lines that nobody was told about yet.
    untold: u64,
    told: Option<Instant>,
}

impl Limits {
    /// Takes out what is too much, and adds a line that says so.
    pub(crate) fn apply(&mut self, lines: &mut Vec<JournalEntry>, now: Instant) {
        let all = std::mem::take(lines);
        for line in all {
            let bucket = self.units.entry(line.unit.clone()).or_insert(Bucket {
                left: BURST,
                filled: now,
                untold: 0,
                told: None,
            });
            let millis = now.saturating_duration_since(bucket.filled).as_millis();
            let more = u64::try_from(millis)
                .unwrap_or(u64::MAX)
                .saturating_mul(RATE / 1000);
            if more > 0 {
                bucket.left = bucket.left.saturating_add(more).min(BURST);
                bucket.filled = now;
            }
            let cost = line.text.len() as u64 + LINE;
            let Some(left) = bucket.left.checked_sub(cost) else {
                bucket.untold += 1;
                self.suppressed += 1;
                continue;
            };
            bucket.left = left;
            let due = bucket
                .told
                .is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
            if bucket.untold > 0 && due {
                lines.push(JournalEntry {
                    priority: LogPriority::Warning,
                    continues: false,
                    origin: None,
                    text: format!(
                        "{} lines were left out here: the unit writes more than {} KiB in a second",
                        bucket.untold,
                        RATE >> 10
                    ),
                    ..line.clone()
                });
                bucket.untold = 0;
                bucket.told = Some(now);
            }
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use keelson_journal::BootId;

    use super::*;

    fn line(unit: &str) -> JournalEntry {
        JournalEntry {
            time: 0,
            uptime: 0,
            boot: BootId::default(),
            unit: unit.to_owned(),
            priority: LogPriority::Info,
            continues: false,
            origin: None,
            text: "x".repeat(924),
        }
    }

    #[test]
    fn a_flood_is_cut_and_told_about_and_harms_no_other_unit() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let mut lines: Vec<_> = (0..20_000).map(|_| line("noisy")).collect();
        lines.push(line("calm"));
        limits.apply(&mut lines, start);
        assert_eq!(lines.len(), 8192 + 1);
        assert_eq!(lines.last().unwrap().unit, "calm");
        assert_eq!(limits.suppressed, 20_000 - 8192);
        let later = start + Duration::from_secs(2);
        let mut lines: Vec<_> = (0..2000).map(|_| line("noisy")).collect();
        limits.apply(&mut lines, later);
        assert!(
            lines[0].text.starts_with("11808 lines were left out"),
            "{}",
            lines[0].text
        );
        assert!((1000..1030).contains(&lines.len()), "{}", lines.len());
    }
}
