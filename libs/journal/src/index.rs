//! What a segment contains: for every block of about [`BLOCK`] bytes and as a whole.
//!
//! In a file: magic `KEELJIX\n`, `u32` version, `u32` check over everything that follows, then `u64`s:
//! the end, the most urgent priority, whether something is damaged, the numbers of boots and of blocks;
//! each boot with its identifier in two, and its span; each block with its offset, priority and span.
//! A span is the first and the last number, the earliest and the latest time.

use keelson_log::format::check;

use crate::entry::BootId;
use crate::format::{JournalRecord, SEGMENT_HEADER};

/// Bytes after which a new block begins.
const BLOCK: u64 = 64 << 10;
const MAGIC: [u8; 8] = *b"KEELJIX\n";
const VERSION: u32 = 1;
/// Magic, version and check.
const HEADER: usize = 16;
/// More than any priority: no line.
const NOTHING: u8 = 255;

/// The lines of some part: their numbers and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) earliest: u64,
    pub(crate) latest: u64,
}

impl Span {
    const EMPTY: Self = Self {
        first: u64::MAX,
        last: 0,
        earliest: u64::MAX,
        latest: 0,
    };

    pub(crate) fn add(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.earliest = self.earliest.min(other.earliest);
        self.latest = self.latest.max(other.latest);
    }
}

/// A part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexBlock {
    /// Where it begins.
    pub(crate) offset: u64,
    pub(crate) span: Span,
    /// The most urgent priority.
    pub(crate) priority: u8,
}

/// What a segment contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    /// Where the last record ends.
    pub(crate) end: u64,
    /// Whether something in it is no record.
    pub(crate) damaged: bool,
    pub(crate) span: Span,
    pub(crate) priority: u8,
    pub(crate) boots: Vec<(BootId, Span)>,
    pub(crate) blocks: Vec<IndexBlock>,
}

impl SegmentIndex {
    /// Of a segment that has only its header.
    pub(crate) fn new() -> Self {
        Self {
            end: SEGMENT_HEADER as u64,
            damaged: false,
            span: Span::EMPTY,
            priority: NOTHING,
            boots: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Adds the record that begins at `offset` and ends at `end`.
    pub(crate) fn add(&mut self, offset: u64, end: u64, record: &JournalRecord<'_>) {
        let full = |block: &IndexBlock| offset - block.offset >= BLOCK;
        if self.blocks.last().is_none_or(full) {
            self.blocks.push(IndexBlock {
                offset,
                span: Span::EMPTY,
                priority: NOTHING,
            });
        }
        self.end = end;
        if record.only_origin {
            return;
        }
        let span = Span {
            first: record.sequence,
            last: record.sequence,
            earliest: record.time,
            latest: record.time,
        };
        let priority = record.priority.number();
        self.span.add(span);
        self.priority = self.priority.min(priority);
        if let Some(block) = self.blocks.last_mut() {
            block.span.add(span);
            block.priority = block.priority.min(priority);
        }
        match self.boots.iter_mut().find(|(boot, _)| *boot == record.boot) {
            Some((_, known)) => known.add(span),
            None => self.boots.push((record.boot, span)),
        }
    }

    /// The block that an offset lies in, and where it ends.
    pub(crate) fn block_at(&self, offset: u64) -> Option<(&IndexBlock, u64)> {
        let after = self.blocks.partition_point(|block| block.offset <= offset);
        let block = self.blocks.get(after.checked_sub(1)?)?;
        let end = self.blocks.get(after).map_or(self.end, |next| next.offset);
        Some((block, end))
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut numbers = vec![
            self.end,
            self.priority.into(),
            self.damaged.into(),
            self.boots.len() as u64,
            self.blocks.len() as u64,
        ];
        let add = |numbers: &mut Vec<u64>, span: &Span| {
            numbers.extend([span.first, span.last, span.earliest, span.latest]);
        };
        for (boot, span) in &self.boots {
            let id = u128::from_le_bytes(boot.0);
            numbers.extend([id as u64, (id >> 64) as u64]);
            add(&mut numbers, span);
        }
        for block in &self.blocks {
            numbers.extend([block.offset, block.priority.into()]);
            add(&mut numbers, &block.span);
        }
        let body: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&check(&MAGIC, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads it; `None` when it is damaged, or of an unknown version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(HEADER)?;
        let known = header.get(..8)? == MAGIC && header.get(8..12)? == VERSION.to_le_bytes();
        let whole = header.get(12..)? == check(&MAGIC, body).to_le_bytes();
        (known && whole && body.len().is_multiple_of(8)).then_some(())?;
        let numbers = body.chunks_exact(8);
        let mut numbers = numbers.map(|n| n.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || numbers.next();
        let (end, priority, damaged) = (next()?, next()?, next()?);
        let (boots, blocks) = (next()?, next()?);
        let mut index = Self {
            end,
            damaged: damaged != 0,
            priority: u8::try_from(priority).ok()?,
            ..Self::new()
        };
        for _ in 0..boots {
            let (low, high) = (u128::from(next()?), u128::from(next()?));
            let id = low | (high << 64);
            let span = span(&mut next)?;
            index.boots.push((BootId(id.to_le_bytes()), span));
            index.span.add(span);
        }
        for _ in 0..blocks {
            index.blocks.push(IndexBlock {
                offset: next()?,
                priority: u8::try_from(next()?).ok()?,
                span: span(&mut next)?,
            });
        }
        Some(index)
    }
}

fn span(next: &mut impl FnMut() -> Option<u64>) -> Option<Span> {
    Some(Span {
        first: next()?,
        last: next()?,
        earliest: next()?,
        latest: next()?,
    })
}

#[cfg(test)]
mod tests {
    use keelson_model::logs::LogPriority;

    use super::*;

    #[test]
    fn an_index_comes_back_and_damage_is_found() {
        let mut index = SegmentIndex::new();
        for sequence in 0..2000 {
            let record = JournalRecord {
                sequence,
                time: 10_000 - sequence,
                uptime: 0,
                boot: BootId([(sequence / 1500) as u8; 16]),
                priority: LogPriority::from_number((sequence % 5 + 3) as u8),
                continues: false,
                only_origin: sequence == 7,
                origin: None,
                text: b"",
            };
            index.add(index.end, index.end + 100, &record);
        }
        assert_eq!(index.blocks.len(), 4);
        assert_eq!(index.boots.len(), 2);
        assert_eq!(index.priority, 3);
        assert_eq!(index.span.earliest, 8001);
        let bytes = index.encode();
        assert_eq!(SegmentIndex::decode(&bytes).as_ref(), Some(&index));
        let (block, end) = index.block_at(index.blocks[1].offset + 1).unwrap();
        assert_eq!((block, end), (&index.blocks[1], index.blocks[2].offset));
        for at in (0..bytes.len()).step_by(7) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert_eq!(SegmentIndex::decode(&wrong), None, "byte {at}");
            assert_eq!(SegmentIndex::decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
