//! Bytes of the log format, version 1. All numbers are little-endian. Nothing here does I/O.
//!
//! File header, 32 bytes: magic `KEELLOG\n` (`KEELIDX\n` in an index), `u32` version, `u32` zero,
//! `u64` generation, `u64` time of creation.
//!
//! Record: header of 20 bytes, then the payload.
//!
//! | offset | type | meaning |
//! |---|---|---|
//! | 0 | u32 | check over everything that follows, payload included |
//! | 4 | u8 | stream: 0 none, 1 standard output or terminal, 2 standard error |
//! | 5 | u8 | flags: bit 0 partial, bit 1 end of the process's output |
//! | 6 | u16 | zero |
//! | 8 | u32 | payload length, at most [`MAX_PAYLOAD`] |
//! | 12 | u64 | nanoseconds since 1970 (CLOCK_REALTIME) |
//!
//! Index entry, 32 bytes: `u64` offset of a record, `u64` its time, `u64` number of lines that
//! end before it in this file, `u32` check over these, `u32` zero.

/// Longest payload of a record in bytes. Longer lines are split; all pieces but the last are
/// partial.
pub const MAX_PAYLOAD: usize = 16 * 1024;
/// Length of the header of a log file or an index, in bytes.
pub const FILE_HEADER: usize = 32;
/// Length of a record's header in bytes.
pub const RECORD_HEADER: usize = 20;
/// Length of an index entry in bytes.
pub const INDEX_ENTRY: usize = 32;
/// The version that this crate writes and reads.
pub const VERSION: u32 = 1;
/// Start of a log file.
pub const LOG_MAGIC: [u8; 8] = *b"KEELLOG\n";
/// Start of an index.
pub const INDEX_MAGIC: [u8; 8] = *b"KEELIDX\n";

const FLAG_PARTIAL: u8 = 1;
const FLAG_END: u8 = 2;

/// Which stream of the process a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// One record, borrowing its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it comes from.
    pub stream: Stream,
    /// The line continues in the next record of this stream.
    pub partial: bool,
    /// Nanoseconds since 1970 (CLOCK_REALTIME).
    pub time: u64,
    /// The bytes, with the newline when the line has one.
    pub payload: &'a [u8],
}

/// Header of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// One higher in every newer file of a log.
    pub generation: u64,
    /// When the file was made: nanoseconds since 1970.
    pub created: u64,
}

/// The object at a position of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A record and the number of bytes it takes.
    Record(Record<'a>, usize),
    /// The mark that the process's output ended, and the number of bytes it takes.
    End(usize),
    /// The bytes are the beginning of something longer.
    Incomplete,
    /// No record: torn by a crash, or damaged.
    Invalid,
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self, magic: [u8; 8]) -> [u8; FILE_HEADER] {
        let mut bytes = [0; FILE_HEADER];
        bytes[..8].copy_from_slice(&magic);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created.to_le_bytes());
        bytes
    }

    /// Reads a header. The error is a text for people.
    pub fn decode(bytes: &[u8], magic: [u8; 8]) -> Result<Self, &'static str> {
        if bytes.len() < FILE_HEADER {
            return Err("shorter than the header of a log");
        }
        if bytes.get(..8) != Some(&magic[..]) {
            return Err("not a container log");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("a log of an unknown version");
        }
        Ok(Self {
            generation: u64_at(bytes, 16),
            created: u64_at(bytes, 24),
        })
    }
}

/// Appends one record. The payload must not be longer than [`MAX_PAYLOAD`]; the rest is cut off
/// (callers split, see [`encode_output`]).
pub fn encode_record(into: &mut Vec<u8>, record: &Record<'_>) {
    let flags = if record.partial { FLAG_PARTIAL } else { 0 };
    encode(
        into,
        record.stream as u8,
        flags,
        record.time,
        record.payload,
    );
}

/// Appends the mark that the process's output ended.
pub fn encode_end(into: &mut Vec<u8>, time: u64) {
    encode(into, 0, FLAG_END, time, &[]);
}

fn encode(into: &mut Vec<u8>, stream: u8, flags: u8, time: u64, payload: &[u8]) {
    let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    let mut header = [0; RECORD_HEADER];
    header[4] = stream;
    header[5] = flags;
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[12..20].copy_from_slice(&time.to_le_bytes());
    let sum = check(&header[4..], payload);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    into.extend_from_slice(&header);
    into.extend_from_slice(payload);
}

/// Splits output into records, one per line or piece of a line, and appends them. Returns the
/// number of lines that end in it.
pub fn encode_output(into: &mut Vec<u8>, stream: Stream, time: u64, output: &[u8]) -> u64 {
    let mut lines = 0;
    for line in output.split_inclusive(|byte| *byte == b'\n') {
        let ended = line.ends_with(b"\n");
        let pieces = line.chunks(MAX_PAYLOAD);
        let last = pieces.len() - 1;
        for (number, payload) in pieces.enumerate() {
            let partial = number < last || !ended;
            lines += u64::from(!partial);
            let record = Record {
                stream,
                partial,
                time,
                payload,
            };
            encode_record(into, &record);
        }
    }
    lines
}

/// Reads the object at the start of `bytes`.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    if bytes.len() < RECORD_HEADER {
        return Decoded::Incomplete;
    }
    let length = u32_at(bytes, 8) as usize;
    if length > MAX_PAYLOAD {
        return Decoded::Invalid;
    }
    let total = RECORD_HEADER + length;
    let Some(payload) = bytes.get(RECORD_HEADER..total) else {
        return Decoded::Incomplete;
    };
    let header = &bytes[4..RECORD_HEADER];
    if check(header, payload) != u32_at(bytes, 0) {
        return Decoded::Invalid;
    }
    let (number, flags) = (bytes[4], bytes[5]);
    let stream = match number {
        0 if flags & FLAG_END != 0 => return Decoded::End(total),
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return Decoded::Invalid,
    };
    let record = Record {
        stream,
        partial: flags & FLAG_PARTIAL != 0,
        time: u64_at(bytes, 12),
        payload,
    };
    Decoded::Record(record, total)
}

/// The offset of the next complete record or mark after the first byte. The object at the start of
/// `bytes` is damaged. The error is the first offset at which an incomplete record may begin.
pub fn next_whole(bytes: &[u8]) -> Result<usize, usize> {
    let mut open = None;
    for at in 1..bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if !may_begin(rest) {
            continue;
        }
        match decode(rest) {
            Decoded::Record(..) | Decoded::End(_) => return Ok(at),
            Decoded::Incomplete => open = open.or(Some(at)),
            Decoded::Invalid => {}
        }
    }
    Err(open.unwrap_or(bytes.len()))
}

/// Whether bytes look like a record or the beginning of one. It costs less than [`decode`].
fn may_begin(bytes: &[u8]) -> bool {
    match bytes.get(4..8) {
        Some([1 | 2, 0 | FLAG_PARTIAL, 0, 0] | [0, FLAG_END, 0, 0]) => {
            bytes.len() < 12 || u32_at(bytes, 8) as usize <= MAX_PAYLOAD
        }
        Some(_) => false,
        None => true,
    }
}

/// A position in a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of a record.
    pub offset: u64,
    /// The record's time.
    pub time: u64,
    /// Lines of this file that end before the record.
    pub lines: u64,
}

impl IndexEntry {
    /// The entry's bytes.
    pub fn encode(&self) -> [u8; INDEX_ENTRY] {
        let mut bytes = [0; INDEX_ENTRY];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.time.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lines.to_le_bytes());
        let sum = check(&bytes[..24], &[]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads an entry; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..INDEX_ENTRY)?;
        (check(&bytes[..24], &[]) == u32_at(bytes, 24)).then(|| Self {
            offset: u64_at(bytes, 0),
            time: u64_at(bytes, 8),
            lines: u64_at(bytes, 16),
        })
    }
}

/// A multiply-and-fold hash over eight bytes at a time: it must distinguish torn and zeroed data
/// from records and cost almost nothing per byte. It does not have to resist forgery.
pub fn check(header: &[u8], payload: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    // Not zero, so that a run of zero bytes is never valid.
    let mut state = 0x6b65_656c_736f_6e31u64 ^ payload.len() as u64;
    for part in [header, payload] {
        let mut words = part.chunks_exact(8);
        for word in &mut words {
            state = (state ^ u64_at(word, 0)).wrapping_mul(FACTOR);
            state ^= state >> 32;
        }
        state = (state ^ last_word(part, words.remainder())).wrapping_mul(FACTOR);
        state ^= state >> 29;
    }
    (state ^ (state >> 32)) as u32
}

/// The bytes after the last whole word of `part`, filled up with zeros. It does not call `memcpy`,
/// which takes longer than everything else for so few bytes.
fn last_word(part: &[u8], rest: &[u8]) -> u64 {
    match part.last_chunk() {
        Some(_) if rest.is_empty() => 0,
        Some(last) => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
        None => rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Number at an offset; zero when the bytes end before it.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..offset + 4)
        .and_then(|part| part.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..offset + 8)
        .and_then(|part| part.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(mut bytes: &[u8]) -> Vec<(Stream, bool, u64, Vec<u8>)> {
        let mut records = Vec::new();
        while let Decoded::Record(record, length) = decode(bytes) {
            records.push((
                record.stream,
                record.partial,
                record.time,
                record.payload.to_vec(),
            ));
            bytes = &bytes[length..];
        }
        assert!(bytes.is_empty());
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn output_comes_back_byte_for_byte(
            output in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..40_000),
            time in any::<u64>(),
        ) {
            let mut bytes = Vec::new();
            let lines = encode_output(&mut bytes, Stream::Stderr, time, &output);
            let records = decode_all(&bytes);
            prop_assert_eq!(lines, output.iter().filter(|byte| **byte == b'\n').count() as u64);
            prop_assert_eq!(lines, records.iter().filter(|record| !record.1).count() as u64);
            prop_assert!(records.iter().all(|record| record.3.len() <= MAX_PAYLOAD && record.2 == time));
            let joined: Vec<u8> = records.into_iter().flat_map(|record| record.3).collect();
            prop_assert_eq!(joined, output);
        }

        #[test]
        fn a_torn_record_is_never_shown(payload in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..220) {
            let mut bytes = Vec::new();
            encode_record(&mut bytes, &Record { stream: Stream::Stdout, partial: false, time: 7, payload: &payload });
            let cut = cut.min(bytes.len().saturating_sub(1));
            prop_assert_eq!(decode(&bytes[..cut]), Decoded::Incomplete);
        }

        #[test]
        fn a_changed_bit_is_found(payload in proptest::collection::vec(any::<u8>(), 1..200), bit in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode_record(&mut bytes, &Record { stream: Stream::Stdout, partial: false, time: 7, payload: &payload });
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(decode(&bytes), Decoded::Record(..) | Decoded::End(_)));
        }

        #[test]
        fn after_damage_the_next_record_is_found(
            damage in proptest::collection::vec(any::<u8>(), 1..100),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = damage.clone();
            encode_record(&mut bytes, &Record { stream: Stream::Stderr, partial: true, time: 7, payload: &payload });
            prop_assert_eq!(next_whole(&bytes), Ok(damage.len()));
            // An incomplete record is not skipped.
            let cut = damage.len() + cut.index(bytes.len() - damage.len());
            let open = next_whole(&bytes[..cut]).unwrap_err();
            prop_assert!(open <= damage.len());
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (decode(&bytes), next_whole(&bytes));
            let _ = IndexEntry::decode(&bytes);
            let _ = FileHeader::decode(&bytes, LOG_MAGIC);
        }
    }

    #[test]
    fn the_check_is_that_of_the_first_release() {
        let bytes: Vec<u8> = (0..=255).collect();
        let sums = [0, 1, 7, 8, 9, 15, 16, 100].map(|length| check(&bytes[..16], &bytes[..length]));
        let known = [
            0x2fcf_9b89,
            0x1fd9_9d11,
            0xcb89_b4be,
            0x4a58_28fc,
            0xde74_23a5,
            0xcb39_aa77,
            0xe9a7_9c71,
            0x5dfe_182c,
        ];
        assert_eq!(sums, known);
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(decode(&[0; 64]), Decoded::Invalid);
        assert_eq!(IndexEntry::decode(&[0; INDEX_ENTRY]), None);
    }
}
