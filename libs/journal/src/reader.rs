//! Reads lines of all units in the order of their numbers.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use keelson_model::logs::LogPriority;

use crate::JournalError;
use crate::entry::{BootId, JournalEntry, StoredEntry};
use crate::format::{JournalRecord, RECORD_HEADER, SEGMENT_HEADER, scan};
use crate::index::{SegmentIndex, Span};
use crate::shared::{Journal, SegmentView};

/// Which lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalFilter {
    /// Only these units; all if it is empty.
    pub units: Vec<String>,
    /// Only this boot.
    pub boot: Option<BootId>,
    /// Nothing earlier, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Nothing later.
    pub until: Option<u64>,
    /// Nothing less urgent.
    pub priority: Option<LogPriority>,
    /// Only lines with a higher number.
    pub after: u64,
}

impl JournalFilter {
    fn has_unit(&self, unit: &str) -> bool {
        self.units.is_empty() || self.units.iter().any(|wanted| wanted == unit)
    }

    fn may_be_in(&self, span: &Span, priority: u8) -> bool {
        span.last > self.after
            && self.since.is_none_or(|since| span.latest >= since)
            && self.until.is_none_or(|until| span.earliest <= until)
            && self
                .priority
                .is_none_or(|wanted| priority <= wanted.number())
    }

    fn may_be_in_segment(&self, index: &SegmentIndex) -> bool {
        self.may_be_in(&index.span, index.priority)
            && self.boot.is_none_or(|wanted| {
                let mut boots = index.boots.iter();
                boots.any(|(boot, _)| *boot == wanted)
            })
    }

    fn accepts(&self, record: &JournalRecord<'_>) -> bool {
        !record.only_origin
            && record.sequence > self.after
            && self.boot.is_none_or(|boot| record.boot == boot)
            && self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
            && self.priority.is_none_or(|wanted| record.priority <= wanted)
    }
}

/// A position in the store, and what is wanted from there on. It never disturbs the writer.
pub struct JournalReader {
    journal: Journal,
    filter: JournalFilter,
    chains: BTreeMap<String, Cursor>,
    position: u64,
}

/// A position in a chain.
#[derive(Debug, Default)]
struct Cursor {
    /// The first number of the segment.
    segment: u64,
    offset: u64,
    /// Lines that were read and not taken yet.
    queue: VecDeque<StoredEntry>,
}

impl JournalReader {
    /// A reader before the oldest line.
    #[must_use]
    pub fn new(journal: Journal, filter: JournalFilter) -> Self {
        Self {
            journal,
            position: filter.after,
            filter,
            chains: BTreeMap::new(),
        }
    }

    /// Everything wanted up to this number was returned.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The last `most` lines that are wanted. The reader goes on after them.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn tail(&mut self, most: usize) -> Result<Vec<StoredEntry>, JournalError> {
        let (chains, last) = self.look();
        let mut found: Vec<StoredEntry> = Vec::new();
        for (unit, segments) in chains {
            let mut of_chain = VecDeque::new();
            'chain: for segment in segments.iter().rev() {
                if !self.filter.may_be_in_segment(&segment.index) {
                    continue;
                }
                for block in segment.index.blocks.iter().rev() {
                    if of_chain.len() >= most {
                        break 'chain;
                    }
                    if !self.filter.may_be_in(&block.span, block.priority) {
                        continue;
                    }
                    let end = segment
                        .index
                        .block_at(block.offset)
                        .map_or(0, |found| found.1);
                    let mut lines = Vec::new();
                    self.read(&unit, segment, block.offset, end, &mut lines)?;
                    for line in lines.into_iter().rev() {
                        of_chain.push_front(line);
                    }
                }
            }
            let skip = of_chain.len().saturating_sub(most);
            found.extend(of_chain.into_iter().skip(skip));
            if let Some(newest) = segments.last() {
                let cursor = Cursor {
                    segment: newest.first,
                    offset: newest.index.end,
                    queue: VecDeque::new(),
                };
                self.chains.insert(unit, cursor);
            }
        }
        found.sort_by_key(|line| line.sequence);
        found.drain(..found.len().saturating_sub(most));
        self.position = last;
        Ok(found)
    }

    /// The next lines, of about `bytes` bytes of text. An empty list means that there are none now;
    /// the call may be repeated.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn next(&mut self, bytes: usize) -> Result<Vec<StoredEntry>, JournalError> {
        let (chains, last) = self.look();
        let mut cursors = std::mem::take(&mut self.chains);
        let found = self.merge(&chains, &mut cursors, last, bytes);
        self.chains = cursors;
        found
    }

    fn merge(
        &mut self,
        chains: &[(String, Vec<SegmentView>)],
        cursors: &mut BTreeMap<String, Cursor>,
        last: u64,
        bytes: usize,
    ) -> Result<Vec<StoredEntry>, JournalError> {
        // A chain without lines now has none until the next look.
        let mut open: BTreeMap<&str, &[SegmentView]> = chains
            .iter()
            .map(|(unit, segments)| (unit.as_str(), segments.as_slice()))
            .collect();
        for unit in open.keys() {
            if !cursors.contains_key(*unit) {
                cursors.insert((*unit).to_owned(), Cursor::default());
            }
        }
        let mut found = Vec::new();
        let mut size = 0;
        while size < bytes {
            let mut next: Option<&mut Cursor> = None;
            for (unit, cursor) in cursors.iter_mut() {
                if cursor.queue.is_empty()
                    && let Some(segments) = open.get(unit.as_str())
                {
                    self.fill(unit, cursor, segments)?;
                    if cursor.queue.is_empty() {
                        open.remove(unit.as_str());
                    }
                }
                let number = |cursor: &Cursor| cursor.queue.front().map(|line| line.sequence);
                let Some(first) = number(cursor) else {
                    continue;
                };
                let former = next.as_deref().and_then(number);
                if former.is_none_or(|former| first < former) {
                    next = Some(cursor);
                }
            }
            let Some(line) = next.and_then(|cursor| cursor.queue.pop_front()) else {
                self.position = last;
                break;
            };
            size += RECORD_HEADER + line.entry.text.len();
            self.position = line.sequence;
            found.push(line);
        }
        Ok(found)
    }

    /// The chains that may have wanted lines, and the newest number, at one moment.
    fn look(&self) -> (Vec<(String, Vec<SegmentView>)>, u64) {
        let view = self.journal.view();
        let wanted = view
            .chains
            .iter()
            .filter(|(unit, _)| self.filter.has_unit(unit));
        let chains = wanted.map(|(unit, chain)| (unit.clone(), chain.clone()));
        (chains.collect(), view.last)
    }

    /// Reads on in a chain until there is a line, or no more.
    fn fill(
        &self,
        unit: &str,
        cursor: &mut Cursor,
        segments: &[SegmentView],
    ) -> Result<(), JournalError> {
        let from = segments.partition_point(|segment| segment.first < cursor.segment);
        for segment in segments.get(from..).unwrap_or_default() {
            if segment.first != cursor.segment || cursor.offset == 0 {
                cursor.segment = segment.first;
                cursor.offset = SEGMENT_HEADER as u64;
            }
            if !self.filter.may_be_in_segment(&segment.index) {
                cursor.offset = cursor.offset.max(segment.index.end);
            }
            while cursor.queue.is_empty()
                && cursor.offset < segment.index.end
                && let Some((block, end)) = segment.index.block_at(cursor.offset)
            {
                if self.filter.may_be_in(&block.span, block.priority) {
                    let mut lines = Vec::new();
                    self.read(unit, segment, cursor.offset, end, &mut lines)?;
                    cursor.queue.extend(lines);
                }
                cursor.offset = end;
            }
            if !cursor.queue.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The wanted lines between two offsets of a segment.
    fn read(
        &self,
        unit: &str,
        segment: &SegmentView,
        from: u64,
        to: u64,
        into: &mut Vec<StoredEntry>,
    ) -> Result<(), JournalError> {
        let path = &segment.path;
        let file = match File::open(path) {
            Ok(file) => file,
            // It was removed because the store was full.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(JournalError::new("open", path)(error)),
        };
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or_default()];
        file.read_exact_at(&mut bytes, from)
            .map_err(JournalError::new("read", path))?;
        scan(&bytes, |_, record| {
            if self.filter.accepts(&record) {
                into.push(StoredEntry {
                    sequence: record.sequence,
                    entry: JournalEntry {
                        time: record.time,
                        uptime: record.uptime,
                        boot: record.boot,
                        unit: unit.to_owned(),
                        priority: record.priority,
                        continues: record.continues,
                        origin: record.origin,
                        text: String::from_utf8_lossy(record.text).into_owned(),
                    },
                });
            }
        });
        Ok(())
    }
}
