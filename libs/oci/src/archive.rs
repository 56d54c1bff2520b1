//! Reads tar archives as a stream, without I/O: [`Scanner::push`] accepts bytes in pieces of any
//! size, and a [`Visitor`] gets entries and their data.
//!
//! Header decoding is tar-core's (POSIX pax, ustar, v7, GNU long names, all sparse formats), with
//! bounded memory. This module decides the cases that tar-core leaves open, in the way of Go's
//! archive/tar, so that we read an archive as Docker does: fractions of a second and negative times
//! are read; malformed pax numbers are refused; links, devices and directories have no content,
//! whatever their size field says; a slash at the end of a name makes a directory only in archives
//! of the oldest format; and GNU's long names end at their first zero.

use tar_core::parse::{Limits as TarLimits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxExtensions};

const BLOCK: u64 = 512;
/// Offset of the type flag in a header; zero in archives without POSIX's types.
const TYPE_FLAG: usize = 156;

/// Largest path or link target, in bytes (PATH_MAX of Linux, with its terminating zero).
pub const MAX_PATH: usize = 4095;
/// Largest sum of all extension records of one entry (pax records, GNU long names), in bytes.
const MAX_METADATA: u32 = 1 << 20;
/// Most parts of a sparse file.
const MAX_SPARSE_PARTS: usize = 65_536;
/// Most header bytes ever held: extension records with their headers, sparse maps.
const MAX_HEADER: usize = 8 << 20;
/// From this many header bytes on, more are collected than the parser asks for: it starts again
/// each time, and asks for the map of a sparse file block by block.
const GATHERED: usize = 64 << 10;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are no tar headers.
    #[error("malformed tar header at byte {offset}: {source}")]
    Header {
        /// Offset of the header in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        source: ParseError,
    },
    /// The headers of an entry are too large.
    #[error("the tar headers at byte {offset} need more than {MAX_HEADER} bytes")]
    TooLarge {
        /// Offset in the uncompressed stream.
        offset: u64,
    },
    /// A value in a header is out of range.
    #[error("tar entry {name:?}: {field} {value:?} is not valid")]
    Value {
        /// The entry.
        name: String,
        /// Which value.
        field: &'static str,
        /// The text in the archive.
        value: String,
    },
    /// The stream ended inside an entry.
    #[error("the tar archive is cut off at byte {offset}{}", in_entry(.entry))]
    Truncated {
        /// The offset of the end.
        offset: u64,
        /// The entry whose data is incomplete.
        entry: Option<String>,
    },
}

fn in_entry(entry: &Option<String>) -> String {
    entry
        .as_ref()
        .map_or_else(String::new, |name| format!(", inside {name:?}"))
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Another name of an earlier entry.
    HardLink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Any other type flag.
    Other(u8),
}

/// A part of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparsePart {
    /// Where the part begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// One entry of an archive. Paths are as written, not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path.
    pub path: Vec<u8>,
    /// The kind.
    pub kind: EntryKind,
    /// Target of a symbolic or hard link; else empty.
    pub link: Vec<u8>,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the time, below 1 000 000 000.
    pub mtime_nsec: u32,
    /// Major number of a device.
    pub major: u32,
    /// Minor number of a device.
    pub minor: u32,
    /// Bytes of the file; for a sparse file with its holes.
    pub size: u64,
    /// Bytes of data in the archive.
    pub stored: u64,
    /// Where in the uncompressed stream the data begins.
    pub data_offset: u64,
    /// The parts with data, in the order of storage; `None` for a file without holes.
    pub sparse: Option<Vec<SparsePart>>,
    /// Extended attributes with their full names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry without data: everything else is 0 or empty.
    pub fn new(path: Vec<u8>, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nsec: 0,
            major: 0,
            minor: 0,
            size: 0,
            stored: 0,
            data_offset: 0,
            sparse: None,
            xattrs: Vec::new(),
        }
    }

    /// The path for messages.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Receives the results of a [`Scanner`]. An error of any method ends the scan.
pub trait Visitor {
    /// The error type; archive errors convert into it.
    type Error: From<ArchiveError>;

    /// An entry begins.
    fn entry(&mut self, entry: Entry) -> Result<(), Self::Error>;

    /// The next bytes of the entry's data.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        let _ = bytes;
        Ok(())
    }

    /// All data of the entry were delivered.
    fn end(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The state of a scan.
#[derive(Debug)]
pub struct Scanner {
    parser: Parser,
    /// Header bytes that do not yet make a whole entry.
    pending: Vec<u8>,
    /// How many header bytes the parser asked for.
    least: usize,
    /// How many are collected before it gets them.
    wanted: usize,
    /// Position in the stream of the first pending byte, or of the next byte.
    position: u64,
    /// Data bytes of the current entry that are still to come.
    data_left: u64,
    /// Padding bytes after them.
    padding_left: u64,
    in_entry: bool,
    /// Path of the current entry.
    current: Vec<u8>,
    ended: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scan at the start of an archive.
    pub fn new() -> Self {
        let mut parser = Parser::new(TarLimits {
            max_metadata_size: MAX_METADATA,
            max_path_len: Some(MAX_PATH as u32),
            max_pending_entries: 16,
            max_sparse_entries: MAX_SPARSE_PARTS,
        });
        // Malformed pax numbers are found by `decode`, which knows about fractions and signs.
        parser.set_ignore_pax_errors(true);
        Self {
            parser,
            pending: Vec::new(),
            least: BLOCK as usize,
            wanted: BLOCK as usize,
            position: 0,
            data_left: 0,
            padding_left: 0,
            in_entry: false,
            current: Vec::new(),
            ended: false,
        }
    }

    /// Whether the end-of-archive marker was seen. Bytes after it are ignored.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next bytes of the archive.
    pub fn push<V: Visitor>(&mut self, mut input: &[u8], visitor: &mut V) -> Result<(), V::Error> {
        while !input.is_empty() {
            if self.ended {
                self.position += input.len() as u64;
                return Ok(());
            }
            if self.data_left > 0 {
                let (data, rest) = split(input, self.data_left);
                visitor.data(data)?;
                self.data_left -= data.len() as u64;
                self.position += data.len() as u64;
                input = rest;
            } else if self.in_entry {
                self.in_entry = false;
                visitor.end()?;
            } else if self.padding_left > 0 {
                let (padding, rest) = split(input, self.padding_left);
                self.padding_left -= padding.len() as u64;
                self.position += padding.len() as u64;
                input = rest;
            } else {
                let missing = self.wanted.saturating_sub(self.pending.len());
                let (header, rest) = split(input, missing as u64);
                self.pending.extend_from_slice(header);
                input = rest;
                if self.pending.len() >= self.wanted {
                    self.header(visitor)?;
                }
            }
        }
        self.close_entry(visitor)
    }

    /// Ends the stream.
    pub fn finish<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        // More was collected than needed. Each turn consumes something, or asks for more.
        while !self.pending.is_empty() && self.pending.len() >= self.least {
            self.header(visitor)?;
        }
        self.close_entry(visitor)?;
        let zeros = self.pending.iter().all(|byte| *byte == 0);
        // A missing end marker or missing padding after the last entry is common and harmless:
        // the digest shows whether the archive is complete.
        if self.data_left > 0 || (!self.pending.is_empty() && !zeros) {
            return Err(ArchiveError::Truncated {
                offset: self.position + self.pending.len() as u64,
                entry: (self.data_left > 0)
                    .then(|| String::from_utf8_lossy(&self.current).into_owned()),
            }
            .into());
        }
        Ok(())
    }

    fn close_entry<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        if self.in_entry && self.data_left == 0 {
            self.in_entry = false;
            visitor.end()?;
        }
        Ok(())
    }

    fn header<V: Visitor>(&mut self, visitor: &mut V) -> Result<(), V::Error> {
        let pending = std::mem::take(&mut self.pending);
        let offset = self.position;
        let event = self
            .parser
            .parse(&pending)
            .map_err(|source| ArchiveError::Header { offset, source })?;
        let (consumed, entry) = match event {
            ParseEvent::NeedData { min_bytes } => {
                // A parser that asks for bytes that it already has would never finish.
                if min_bytes > MAX_HEADER || min_bytes <= pending.len() {
                    return Err(ArchiveError::TooLarge { offset }.into());
                }
                self.least = min_bytes;
                self.wanted = match pending.len() {
                    few if few < GATHERED => min_bytes,
                    many => min_bytes.max(many + many / 2),
                };
                self.pending = pending;
                return Ok(());
            }
            ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
            ParseEvent::End { consumed } => {
                self.ended = true;
                (consumed, None)
            }
            ParseEvent::Entry { consumed, entry } => {
                let at = offset + consumed as u64;
                (consumed, Some(decode(&entry, at, None)?))
            }
            ParseEvent::SparseEntry {
                consumed,
                entry,
                sparse_map,
                real_size,
            } => {
                let parts = sparse_map
                    .iter()
                    .filter(|part| part.length > 0)
                    .map(|part| SparsePart {
                        offset: part.offset,
                        length: part.length,
                    })
                    .collect();
                let at = offset + consumed as u64;
                (
                    consumed,
                    Some(decode(&entry, at, Some((parts, real_size)))?),
                )
            }
        };
        let consumed = consumed.min(pending.len());
        self.position += consumed as u64;
        self.least = BLOCK as usize;
        self.wanted = BLOCK as usize;
        if let Some(entry) = entry {
            self.data_left = entry.stored;
            self.padding_left = entry.stored.next_multiple_of(BLOCK) - entry.stored;
            self.in_entry = true;
            self.current.clone_from(&entry.path);
            visitor.entry(entry)?;
        }
        // More was collected than needed, because the map of a sparse file does not begin with its
        // length.
        match pending.get(consumed..) {
            Some(rest) if !rest.is_empty() => self.push(rest, visitor),
            _ => Ok(()),
        }
    }
}

fn split(input: &[u8], at: u64) -> (&[u8], &[u8]) {
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(input.len());
    input.split_at(at)
}

fn decode(
    parsed: &ParsedEntry<'_>,
    data_offset: u64,
    sparse: Option<(Vec<SparsePart>, u64)>,
) -> Result<Entry, ArchiveError> {
    let name = || parsed.path_lossy().into_owned();
    let invalid = |field, value: String| ArchiveError::Value {
        name: name(),
        field,
        value,
    };
    let is_old = parsed.header.as_bytes().get(TYPE_FLAG) == Some(&0);
    let kind = match parsed.entry_type {
        EntryType::Regular if is_old && parsed.path.ends_with(b"/") => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => EntryKind::File,
        EntryType::Link => EntryKind::HardLink,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Char => EntryKind::CharDevice,
        EntryType::Block => EntryKind::BlockDevice,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Fifo => EntryKind::Fifo,
        other => EntryKind::Other(other.as_byte()),
    };
    let stored = match kind {
        EntryKind::File | EntryKind::Other(_) => parsed.size,
        _ => 0,
    };
    // No file system of Linux goes beyond this, and sums of offsets stay far from an overflow.
    const MAX_SIZE: u64 = 1 << 60;
    let size = sparse.as_ref().map_or(stored, |(_, size)| *size);
    if stored > MAX_SIZE || size > MAX_SIZE {
        return Err(invalid("size", size.max(stored).to_string()));
    }
    // The largest number means "unchanged" to chown(2).
    let number = |field, value: u64| match u32::try_from(value) {
        Ok(number) if number != u32::MAX => Ok(number),
        _ => Err(invalid(field, value.to_string())),
    };
    let uid = number("uid", parsed.uid)?;
    let gid = number("gid", parsed.gid)?;
    // Pax records may not have zeros; their names are refused later, by the same sign.
    let name_of = |bytes: &[u8]| match parsed.pax {
        Some(_) => bytes.to_vec(),
        None => bytes.iter().copied().take_while(|b| *b != 0).collect(),
    };
    let mut entry = Entry {
        path: name_of(&parsed.path),
        kind,
        link: parsed.link_target.as_deref().map_or_else(Vec::new, name_of),
        mode: parsed.mode & 0o7777,
        uid,
        gid,
        // Base-256 numbers of negative times arrive as their two's complement.
        mtime: parsed.mtime.cast_signed(),
        mtime_nsec: 0,
        major: parsed.dev_major.unwrap_or(0),
        minor: parsed.dev_minor.unwrap_or(0),
        size,
        stored,
        data_offset,
        sparse: None,
        xattrs: parsed
            .xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
    };
    if let Some(pax) = parsed.pax {
        apply_pax(&mut entry, pax, &invalid)?;
    }
    if let Some((parts, _)) = sparse {
        if let Some(value) = wrong_sparse(&parts, size, stored) {
            return Err(invalid("sparse map", value));
        }
        entry.sparse = Some(parts);
    }
    Ok(entry)
}

/// Reads again the values that tar-core skips if malformed, or cuts (the fraction of a time).
fn apply_pax(
    entry: &mut Entry,
    pax: &[u8],
    invalid: &impl Fn(&'static str, String) -> ArchiveError,
) -> Result<(), ArchiveError> {
    for record in PaxExtensions::new(pax) {
        let record = record.map_err(|error| invalid("pax record", error.to_string()))?;
        let value = record.value_bytes();
        let text = || String::from_utf8_lossy(value).into_owned();
        let number = |field| match std::str::from_utf8(value).map(str::parse::<u64>) {
            // An empty value counts as no record.
            Ok(Ok(_)) => Ok(()),
            _ if value.is_empty() => Ok(()),
            _ => Err(invalid(field, text())),
        };
        match record.key_bytes() {
            b"uid" => number("uid")?,
            b"gid" => number("gid")?,
            b"size" => number("size")?,
            b"mtime" if !value.is_empty() => {
                (entry.mtime, entry.mtime_nsec) = std::str::from_utf8(value)
                    .ok()
                    .and_then(parse_time)
                    .ok_or_else(|| invalid("mtime", text()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A pax time: `[-]seconds[.fraction]`; digits below nanoseconds are dropped.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !all_digits(seconds) || !all_digits(fraction) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let mut nanoseconds = 0;
    for digit in fraction.bytes().chain(std::iter::repeat(b'0')).take(9) {
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

/// The first wrong value of a sparse map. The parts must be in the file, in order and without
/// overlap, and their data in the archive.
fn wrong_sparse(parts: &[SparsePart], size: u64, stored: u64) -> Option<String> {
    let mut end = 0;
    let mut total = 0_u64;
    for part in parts {
        let part_end = part.offset.checked_add(part.length);
        match part_end {
            Some(part_end) if part.offset >= end && part_end <= size => end = part_end,
            _ => return Some(format!("{}+{}", part.offset, part.length)),
        }
        total = total.saturating_add(part.length);
    }
    (total > stored).then(|| format!("{total} bytes where {stored} are stored"))
}
