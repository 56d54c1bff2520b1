//! Reads the kernel's log, from the beginning of this boot on.
//!
//! The kernel numbers its records. The number of each stored one is stored with it, by unit, so that a
//! later hostd of the same boot passes over what it has, and nothing else. The kernel overwrites old
//! records when nobody reads them; a gap in the numbers is told about.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_journal::kmsg::{KmsgRecord, KmsgRecords};
use keelson_journal::{BootId, JournalEntry, JournalOrigin};
use keelson_model::logs::LogPriority;
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::unix::pipe;

use crate::line::now;
use crate::store::Intake;

/// The source's number in [`JournalOrigin`]. Containers' identifiers are random.
pub(crate) const SOURCE: u64 = 1;
/// Longer than any record of the kernel.
const BUFFER: usize = 16 << 10;
/// How long to wait when there is nothing to read from for a time.
const PAUSE: Duration = Duration::from_secs(1);

/// What is stored of this boot, by unit: the number after the last record.
pub(crate) type Stored = BTreeMap<String, u64>;

/// Why the kernel's log is not read.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub(crate) struct KernelLogError {
    operation: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// Passes the records on, for as long as the store takes them.
pub(crate) async fn run(
    path: &Path,
    boot: BootId,
    stored: Stored,
    intake: &Intake,
) -> Result<(), KernelLogError> {
    let error = |operation| {
        let path = path.to_owned();
        move |source| KernelLogError {
            operation,
            path,
            source,
        }
    };
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(error("open"))?;
    // It is read like a pipe, and tokio's pipe can watch a descriptor without `unsafe`.
    let file = pipe::Receiver::from_file_unchecked(file).map_err(error("watch"))?;
    let mut records = KmsgRecords::default();
    let mut order = Order::new(stored);
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match file.try_read(&mut buffer) {
            Ok(0) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Ok(length) => length,
            Err(reason) if reason.kind() == ErrorKind::WouldBlock => {
                file.readable().await.map_err(error("watch"))?;
                continue;
            }
            // The next record was overwritten: the numbers tell how many were.
            Err(reason) if reason.kind() == ErrorKind::BrokenPipe => continue,
            Err(reason) if reason.kind() == ErrorKind::Interrupted => continue,
            Err(reason) => return Err(error("read")(reason)),
        };
        let clock = Clock::now();
        for record in records.push(buffer.get(..length).unwrap_or_default()) {
            for line in order.lines(&record, boot, clock) {
                if let Some(lost) = line.1 {
                    intake.lost(lost);
                }
                if intake.send(line.0).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// What the kernel's times mean now, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Clock {
    real: u64,
    monotonic: u64,
}

impl Clock {
    fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
        Self {
            real: now(),
            monotonic: seconds * 1_000_000_000 + nanos,
        }
    }

    fn real_time(self, uptime: u64) -> u64 {
        self.real
            .saturating_sub(self.monotonic.saturating_sub(uptime))
    }
}

/// Which records are new.
struct Order {
    stored: Stored,
    /// The number that should come next.
    next: u64,
}

impl Order {
    fn new(stored: Stored) -> Self {
        Self { stored, next: 0 }
    }

    /// The lines of a record that are not stored, each with the number of records lost before it.
    fn lines(
        &mut self,
        record: &KmsgRecord,
        boot: BootId,
        clock: Clock,
    ) -> Vec<(JournalEntry, Option<u64>)> {
        let uptime = record.micros.saturating_mul(1000);
        let (unit, priority, text) = record.meaning();
        let after = record.sequence + 1;
        let entry = |unit: &str, priority, text: &str| JournalEntry {
            time: clock.real_time(uptime),
            uptime,
            boot,
            unit: unit.to_owned(),
            priority,
            continues: false,
            origin: Some(JournalOrigin {
                source: SOURCE,
                generation: 0,
                offset: after,
            }),
            text: text.to_owned(),
        };
        let mut lines = Vec::new();
        // What an earlier hostd has stored is no gap, although it may be overwritten since.
        let known = self.stored.values().max().copied().unwrap_or(0);
        let expected = self.next.max(known);
        if record.sequence > expected {
            let lost = record.sequence - expected;
            let text = format!(
                "{lost} records of the kernel's log were overwritten before they could be read"
            );
            lines.push((entry("logs", LogPriority::Warning, &text), Some(lost)));
        }
        self.next = after;
        if self.stored.get(&unit).is_none_or(|stored| after > *stored) {
            let texts = text.split('\n').filter(|line| !line.trim().is_empty());
            lines.extend(texts.map(|text| (entry(&unit, priority, text.trim_end()), None)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock {
        real: 1_000_000_000,
        monotonic: 500_000,
    };

    fn lines(order: &mut Order, line: &str) -> Vec<(String, String, Option<u64>)> {
        let record = KmsgRecord::parse(line.as_bytes()).unwrap();
        let lines = order.lines(&record, BootId::default(), CLOCK);
        lines
            .into_iter()
            .map(|(line, lost)| (line.unit, line.text, lost))
            .collect()
    }

    #[test]
    fn every_record_comes_once_and_gaps_are_told() {
        let text = |unit: &str, text: &str| vec![(unit.to_owned(), text.to_owned(), None)];
        let mut order = Order::new(Stored::new());
        assert_eq!(lines(&mut order, "6,0,1,-;one"), text("kernel", "one"));
        assert_eq!(
            lines(&mut order, "30,1,1,-;hostd: two"),
            text("hostd", "two")
        );
        let gap = lines(&mut order, "6,5,1,-;three");
        assert_eq!(gap.len(), 2);
        assert_eq!((gap[0].0.as_str(), gap[0].2), ("logs", Some(3)));
        // hostd was killed after it had stored its own line, and before it stored the kernel's.
        let stored = Stored::from([("hostd".to_owned(), 2), ("logs".to_owned(), 1)]);
        let mut order = Order::new(stored);
        assert_eq!(lines(&mut order, "6,0,1,-;one"), text("kernel", "one"));
        assert_eq!(lines(&mut order, "30,1,1,-;hostd: two"), []);
        assert_eq!(lines(&mut order, "6,2,1,-;three"), text("kernel", "three"));
        // The kernel has overwritten what was stored.
        let mut order = Order::new(Stored::from([("kernel".to_owned(), 10)]));
        assert_eq!(lines(&mut order, "6,10,1,-;a\\x0a\\x0ab").len(), 2);
    }

    #[test]
    fn times_are_those_of_the_record() {
        assert_eq!(CLOCK.real_time(400_000), 999_900_000);
        assert_eq!(CLOCK.real_time(600_000), 1_000_000_000);
    }
}
