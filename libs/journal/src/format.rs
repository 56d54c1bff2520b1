//! Bytes of a segment, version 1. All numbers are little-endian. Nothing here does I/O.
//!
//! Segment header, 32 bytes: magic `KEELJRN\n`, `u32` version, `u32` zero, `u64` the first number that
//! a record may have, `u64` time of creation.
//!
//! Record: header of 80 bytes, then the text.
//!
//! | offset | type | meaning |
//! |---|---|---|
//! | 0 | u32 | check over everything that follows, text included |
//! | 4 | u32 | [`RECORD_MAGIC`] |
//! | 8 | u32 | length of the text, at most [`LONGEST_TEXT`] |
//! | 12 | u8 | priority |
//! | 13 | u8 | flags: bit 0 continues a line, bit 1 has an origin, bit 2 no line, but only an origin |
//! | 14 | u16 | zero |
//! | 16 | u64 | number |
//! | 24 | u64 | nanoseconds since 1970 |
//! | 32 | u64 | nanoseconds since the kernel started |
//! | 40 | 16 bytes | boot |
//! | 56 | 3 × u64 | origin: source, generation, offset |

use keelson_log::format::check;
use keelson_model::logs::LogPriority;

use crate::entry::{BootId, JournalOrigin, LONGEST_TEXT};

/// Length of the header of a segment, in bytes.
pub const SEGMENT_HEADER: usize = 32;
/// Length of the header of a record, in bytes.
pub const RECORD_HEADER: usize = 80;
/// Start of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"KEELJRN\n";
/// In every record, so that the next one can be found after damage.
pub const RECORD_MAGIC: [u8; 4] = *b"Kjr1";
/// The version that this crate writes and reads.
pub const VERSION: u32 = 1;

const CONTINUES: u8 = 1;
const HAS_ORIGIN: u8 = 2;
const ONLY_ORIGIN: u8 = 4;

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The first number that a record in it may have.
    pub first: u64,
    /// When it was made: nanoseconds since 1970.
    pub created: u64,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..].copy_from_slice(&self.created.to_le_bytes());
        bytes
    }

    /// Reads a header. `None`: it is another file, torn, or of an unknown version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let known = bytes.get(..8)? == SEGMENT_MAGIC && u32_at(bytes, 8)? == VERSION;
        known.then_some(())?;
        Some(Self {
            first: u64_at(bytes, 16)?,
            created: u64_at(bytes, 24)?,
        })
    }
}

/// One record, borrowing its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalRecord<'a> {
    /// Its number.
    pub sequence: u64,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Nanoseconds since the kernel started.
    pub uptime: u64,
    /// The boot.
    pub boot: BootId,
    /// How important it is.
    pub priority: LogPriority,
    /// It goes on with the line before.
    pub continues: bool,
    /// It is no line: it only keeps its origin.
    pub only_origin: bool,
    /// Where it was before.
    pub origin: Option<JournalOrigin>,
    /// The text. It is UTF-8 when this crate has written it.
    pub text: &'a [u8],
}

/// What is at a position of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFound<'a> {
    /// A record and the number of bytes it takes.
    Record(JournalRecord<'a>, usize),
    /// The bytes may be the beginning of a record.
    Incomplete,
    /// No record: torn by a crash, or damaged.
    Invalid,
}

/// Appends one record. A longer text than [`LONGEST_TEXT`] is cut at a character.
pub fn encode_record(into: &mut Vec<u8>, record: &JournalRecord<'_>) {
    let mut length = record.text.len().min(LONGEST_TEXT);
    if length < record.text.len() {
        while length > 0
            && record
                .text
                .get(length)
                .is_some_and(|byte| byte & 0xc0 == 0x80)
        {
            length -= 1;
        }
    }
    let text = record.text.get(..length).unwrap_or_default();
    let mut header = [0; RECORD_HEADER];
    header[4..8].copy_from_slice(&RECORD_MAGIC);
    header[8..12].copy_from_slice(&(text.len() as u32).to_le_bytes());
    header[12] = record.priority.number();
    for (set, flag) in [
        (record.continues, CONTINUES),
        (record.origin.is_some(), HAS_ORIGIN),
        (record.only_origin, ONLY_ORIGIN),
    ] {
        header[13] |= if set { flag } else { 0 };
    }
    header[16..24].copy_from_slice(&record.sequence.to_le_bytes());
    header[24..32].copy_from_slice(&record.time.to_le_bytes());
    header[32..40].copy_from_slice(&record.uptime.to_le_bytes());
    header[40..56].copy_from_slice(&record.boot.0);
    if let Some(origin) = record.origin {
        header[56..64].copy_from_slice(&origin.source.to_le_bytes());
        header[64..72].copy_from_slice(&origin.generation.to_le_bytes());
        header[72..80].copy_from_slice(&origin.offset.to_le_bytes());
    }
    let sum = check(&header[4..], text);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    into.extend_from_slice(&header);
    into.extend_from_slice(text);
}

/// Reads the record at the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8]) -> RecordFound<'_> {
    let start = bytes
        .get(4..8)
        .unwrap_or(bytes.get(4..).unwrap_or_default());
    if !RECORD_MAGIC.starts_with(start) {
        return RecordFound::Invalid;
    }
    let Some(header) = bytes.get(..RECORD_HEADER) else {
        return RecordFound::Incomplete;
    };
    decode_whole(header, bytes).unwrap_or(RecordFound::Invalid)
}

/// `None`: the header is wrong.
fn decode_whole<'a>(header: &[u8], bytes: &'a [u8]) -> Option<RecordFound<'a>> {
    let length = usize::try_from(u32_at(header, 8)?).ok()?;
    let flags = *header.get(13)?;
    let known = flags & !(CONTINUES | HAS_ORIGIN | ONLY_ORIGIN) == 0;
    (known && length <= LONGEST_TEXT).then_some(())?;
    let total = RECORD_HEADER + length;
    let Some(text) = bytes.get(RECORD_HEADER..total) else {
        return Some(RecordFound::Incomplete);
    };
    (check(header.get(4..)?, text) == u32_at(header, 0)?).then_some(())?;
    let origin = JournalOrigin {
        source: u64_at(header, 56)?,
        generation: u64_at(header, 64)?,
        offset: u64_at(header, 72)?,
    };
    let record = JournalRecord {
        sequence: u64_at(header, 16)?,
        time: u64_at(header, 24)?,
        uptime: u64_at(header, 32)?,
        boot: BootId(header.get(40..56)?.try_into().ok()?),
        priority: LogPriority::from_number(*header.get(12)?),
        continues: flags & CONTINUES != 0,
        only_origin: flags & ONLY_ORIGIN != 0,
        origin: (flags & HAS_ORIGIN != 0).then_some(origin),
        text,
    };
    Some(RecordFound::Record(record, total))
}

/// Goes through the records of `bytes`, also after damage. `take` gets each record and its offset.
/// Returns where the last record ends, and whether anything before it, or after it, is no record.
pub fn scan<'a>(bytes: &'a [u8], mut take: impl FnMut(usize, JournalRecord<'a>)) -> (usize, bool) {
    let (mut at, mut end, mut damaged) = (0, 0, false);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if let RecordFound::Record(record, length) = decode(rest) {
            take(at, record);
            at += length;
            end = at;
            continue;
        }
        damaged = true;
        // The next record has its magic four bytes after its start.
        let next = rest
            .get(5..)
            .unwrap_or_default()
            .windows(RECORD_MAGIC.len())
            .position(|window| window == RECORD_MAGIC);
        match next {
            Some(distance) => at += distance + 1,
            None => break,
        }
    }
    (end, damaged)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let part = bytes.get(offset..offset + 4)?;
    part.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let part = bytes.get(offset..offset + 8)?;
    part.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(sequence: u64, text: &[u8]) -> JournalRecord<'_> {
        JournalRecord {
            sequence,
            time: 1,
            uptime: 2,
            boot: BootId([3; 16]),
            priority: LogPriority::Notice,
            continues: sequence.is_multiple_of(2),
            only_origin: false,
            origin: sequence.is_multiple_of(3).then_some(JournalOrigin {
                source: 4,
                generation: 5,
                offset: sequence,
            }),
            text,
        }
    }

    fn all(bytes: &[u8]) -> (Vec<u64>, usize, bool) {
        let mut found = Vec::new();
        let (end, damaged) = scan(bytes, |_, record| found.push(record.sequence));
        (found, end, damaged)
    }

    #[test]
    fn the_format_is_that_of_the_first_release() {
        let header = SegmentHeader {
            first: 0x0102,
            created: 7,
        };
        assert_eq!(SegmentHeader::decode(&header.encode()), Some(header));
        assert_eq!(
            &header.encode()[..18],
            b"KEELJRN\n\x01\0\0\0\0\0\0\0\x02\x01"
        );
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record(3, b"hello"));
        assert_eq!(bytes.len(), 85);
        assert_eq!(&bytes[4..16], b"Kjr1\x05\0\0\0\x05\x02\0\0");
        assert_eq!(u32_at(&bytes, 0), Some(check(&bytes[4..80], b"hello")));
    }

    #[test]
    fn a_tail_torn_at_any_byte_leaves_the_records_before_it() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for (sequence, text) in [(1, &b"one"[..]), (2, b""), (3, b"three")] {
            encode_record(&mut bytes, &record(sequence, text));
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (found, end, damaged) = all(&bytes[..cut]);
            assert_eq!(found.len(), whole, "cut at {cut}");
            assert_eq!(end, ends[whole], "cut at {cut}");
            assert_eq!(damaged, cut != ends[whole], "cut at {cut}");
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = "ä".repeat(LONGEST_TEXT);
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record(1, &[b"x", text.as_bytes()].concat()));
        let RecordFound::Record(found, _) = decode(&bytes) else {
            panic!("no record");
        };
        assert_eq!(found.text.len(), LONGEST_TEXT - 1);
        assert!(std::str::from_utf8(found.text).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_come_back_and_damage_costs_one(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            hit in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = Vec::new();
            let mut starts = Vec::new();
            for (sequence, text) in texts.iter().enumerate() {
                starts.push(bytes.len());
                encode_record(&mut bytes, &record(sequence as u64, text));
            }
            let mut at = 0;
            for (sequence, text) in texts.iter().enumerate() {
                let RecordFound::Record(found, length) = decode(&bytes[at..]) else {
                    panic!("no record");
                };
                prop_assert_eq!(found, record(sequence as u64, text));
                at += length;
            }
            let hit = hit.index(bytes.len());
            bytes[hit] ^= 1 << bit;
            let damaged = starts.iter().rposition(|start| *start <= hit).unwrap() as u64;
            let expected: Vec<u64> = (0..texts.len() as u64).filter(|n| *n != damaged).collect();
            prop_assert_eq!(all(&bytes).0, expected);
        }

        #[test]
        fn any_bytes_are_scanned(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (end, damaged) = scan(&bytes, |_, _| {});
            prop_assert!(end <= bytes.len() && (damaged || end == bytes.len()));
        }
    }
}
