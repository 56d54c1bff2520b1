//! Follows the logs of services' containers, each from the position that is stored with its last line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hostd_containers::{Engine, LogPosition, LogRecord, Scope, Snapshot, Stream};
use keelson_journal::{BootId, JournalEntry, JournalOrigin};
use keelson_model::logs::LogPriority;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::broadcast::error::RecvError;

use crate::line::now;
use crate::store::Intake;

/// A longer line is stored in pieces.
const LONGEST: usize = 8 << 10;
/// Units that are no services.
const RESERVED: [&str; 6] = ["kernel", "init", "netcfg", "hostd", "logs", "other"];

/// The last stored position of each source of a unit.
pub(crate) type Positions = BTreeMap<(String, u64), LogPosition>;

/// The name of a service's unit.
fn unit_of(name: &str) -> String {
    match RESERVED.contains(&name) {
        true => format!("service-{name}"),
        false => name.to_owned(),
    }
}

/// The number of a container as a source. Its identifier is random.
fn source_of(container: &str) -> u64 {
    let beginning = container.get(..16).unwrap_or_default();
    u64::from_str_radix(beginning, 16).unwrap_or_default()
}

/// Follows all containers of the system, also those that are made later.
pub(crate) async fn run(engine: &Engine, boot: BootId, positions: Positions, intake: &Intake) {
    let following: Arc<Mutex<BTreeMap<String, LogPosition>>> = Arc::default();
    let mut active: BTreeMap<String, tokio::task::JoinHandle<()>> = BTreeMap::new();
    let mut events = engine.subscribe();
    loop {
        for container in engine.list(Scope::System) {
            if active
                .get(&container.id)
                .is_some_and(|task| !task.is_finished())
            {
                continue;
            }
            let from = {
                let known = following.lock().unwrap_or_else(PoisonError::into_inner);
                let stored = positions.get(&(unit_of(&container.name), source_of(&container.id)));
                known.get(&container.id).or(stored).copied()
            };
            let (engine, intake) = (engine.clone(), intake.clone());
            let following = Arc::clone(&following);
            let id = container.id.clone();
            let task = tokio::spawn(async move {
                follow(&engine, &container, boot, from, &intake, &following).await;
            });
            active.insert(id, task);
        }
        active.retain(|_, task| !task.is_finished());
        loop {
            match events.recv().await {
                Ok(event) if event.scope == Scope::System => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

async fn follow(
    engine: &Engine,
    container: &Snapshot,
    boot: BootId,
    from: Option<LogPosition>,
    intake: &Intake,
    following: &Mutex<BTreeMap<String, LogPosition>>,
) {
    let mut records = match engine.records(Scope::System, &container.id, from) {
        Ok(records) => records,
        Err(error) => {
            tracing::warn!(service = container.name, %error, "its log is not followed");
            return;
        }
    };
    let mut lines = ServiceLines::new(unit_of(&container.name), source_of(&container.id), boot);
    while let Some(batch) = records.recv().await {
        for record in batch {
            for line in lines.push(record) {
                let end = line.origin.map(|origin| LogPosition {
                    generation: origin.generation,
                    offset: origin.offset,
                });
                if intake.send(line).await.is_err() {
                    return;
                }
                if let Some(end) = end {
                    let mut known = following.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(container.id.clone(), end);
                }
            }
        }
    }
    following
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&container.id);
}

/// Joins records to lines.
struct ServiceLines {
    unit: String,
    source: u64,
    boot: BootId,
    /// Incomplete lines of both streams.
    open: [Vec<u8>; 2],
    /// Whether the line goes on with one that was cut, and the priority of that.
    cut: [Option<LogPriority>; 2],
}

impl ServiceLines {
    fn new(unit: String, source: u64, boot: BootId) -> Self {
        Self {
            unit,
            source,
            boot,
            open: [Vec::new(), Vec::new()],
            cut: [None; 2],
        }
    }

    fn push(&mut self, record: LogRecord) -> Vec<JournalEntry> {
        let stream = usize::from(record.stream == Stream::Stderr);
        let [open_out, open_err] = &mut self.open;
        let [cut_out, cut_err] = &mut self.cut;
        let (open, cut) = match stream {
            0 => (open_out, cut_out),
            _ => (open_err, cut_err),
        };
        open.extend_from_slice(&record.payload);
        if record.partial && open.len() < LONGEST {
            return Vec::new();
        }
        let bytes = std::mem::take(open);
        let (priority, text) = match *cut {
            Some(priority) => (priority, bytes.as_slice()),
            None => prefixed(&bytes),
        };
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end_matches(['\n', '\r']);
        let continues = cut.is_some();
        *cut = record.partial.then_some(priority);
        if text.is_empty() {
            return Vec::new();
        }
        // A later hostd must read the beginning of the other stream's line again.
        let whole = self.open.iter().all(Vec::is_empty);
        let origin = whole.then_some(JournalOrigin {
            source: self.source,
            generation: record.end.generation,
            offset: record.end.offset,
        });
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let mut length = rest.len().min(LONGEST);
            while !rest.is_char_boundary(length) {
                length -= 1;
            }
            let (piece, after) = rest.split_at(length);
            pieces.push(JournalEntry {
                time: record.time,
                uptime: uptime_at(record.time),
                boot: self.boot,
                unit: self.unit.clone(),
                priority,
                continues: continues || !pieces.is_empty(),
                origin,
                text: piece.to_owned(),
            });
            rest = after;
            if rest.is_empty() {
                return pieces;
            }
        }
    }
}

/// A line may begin with its priority, `<3>`, as sd-daemon(3) describes it.
fn prefixed(bytes: &[u8]) -> (LogPriority, &[u8]) {
    match bytes {
        [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] => {
            (LogPriority::from_number(digit - b'0'), rest)
        }
        _ => (LogPriority::Info, bytes),
    }
}

/// The time since the kernel started, at a time of this boot.
fn uptime_at(time: u64) -> u64 {
    let clock = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(clock.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(clock.tv_nsec).unwrap_or_default();
    let uptime = seconds * 1_000_000_000 + nanos;
    uptime.saturating_sub(now().saturating_sub(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stream: Stream, partial: bool, payload: &str, offset: u64) -> LogRecord {
        LogRecord {
            time: 5,
            partial,
            stream,
            payload: payload.as_bytes().to_vec(),
            end: LogPosition {
                generation: 1,
                offset,
            },
        }
    }

    #[test]
    fn records_become_lines_with_priorities() {
        let mut lines = ServiceLines::new("time".to_owned(), 7, BootId::default());
        assert!(
            lines
                .push(record(Stream::Stdout, true, "<4>par", 1))
                .is_empty()
        );
        assert!(lines.push(record(Stream::Stdout, false, "\n", 9)).len() == 1);
        assert!(
            lines
                .push(record(Stream::Stdout, false, "\n", 10))
                .is_empty()
        );
        let found = lines.push(record(Stream::Stderr, false, "x\r\n", 11));
        assert_eq!(
            (found[0].text.as_str(), found[0].priority),
            ("x", LogPriority::Info)
        );
        assert_eq!(found[0].origin.unwrap().offset, 11);
        let long = "y".repeat(LONGEST);
        let one = lines.push(record(Stream::Stdout, true, &format!("<3>{long}"), 12));
        assert_eq!(
            (one.len(), one[0].priority, one[0].continues),
            (1, LogPriority::Error, false)
        );
        let two = lines.push(record(Stream::Stdout, false, "<6>z\n", 13));
        assert_eq!(
            (two[0].text.as_str(), two[0].priority, two[0].continues),
            ("<6>z", LogPriority::Error, true)
        );
        let three = lines.push(record(
            Stream::Stdout,
            false,
            &"w".repeat(2 * LONGEST + 1),
            14,
        ));
        assert_eq!(three.len(), 3);
        assert!(three[2].continues && !three[0].continues);
    }

    #[test]
    fn services_can_not_take_the_names_of_others() {
        assert_eq!(unit_of("kernel"), "service-kernel");
        assert_eq!(unit_of("time"), "time");
        assert_eq!(source_of("00000000000000ff0000"), 255);
    }
}
