//! Turns records into the text for a client: whole lines, or pieces of long ones, of the requested
//! streams and time, many at once.

use std::ops::Range;

use crate::format::{Record, Stream};
use crate::{LogError, Next, Reader};

/// How many bytes are collected before they are passed on.
const BATCH: usize = 256 << 10;
/// How many bytes of a log are examined before the caller gets control again, even if few of them
/// are wanted.
const SCAN: usize = 4 << 20;
/// About how many bytes a piece has. Longer lines are passed on in pieces.
const PIECE: usize = 16 << 10;

/// The header of each piece in the client's protocol, made from the stream and the length.
pub type PieceHeader = fn(Stream, usize) -> [u8; HEADER];
/// Length of such a header.
pub const HEADER: usize = 8;

/// The selection of a log, and its form.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Nothing older than this, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Nothing newer than this, in nanoseconds since 1970.
    pub until: Option<u64>,
    /// Write the time before each line. The function writes the seconds since 1970 as text; nine
    /// digits of a fraction and `Z` follow.
    pub times: Option<fn(u64) -> String>,
    /// Written before each line, after the time.
    pub prefix: String,
    /// Written before each piece.
    pub header: Option<PieceHeader>,
    /// Whether a piece may contain several lines of one stream, for clients that do not need them
    /// separately.
    pub joined: bool,
}

/// A part of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// All pieces, one after the other, each with its header.
    pub bytes: Vec<u8>,
    /// The positions of the pieces. None are listed if pieces have headers.
    pub pieces: Vec<Piece>,
}

/// A line, a part of a long one, or joined lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it comes from.
    pub stream: Stream,
    /// Its position in the batch.
    pub range: Range<usize>,
}

/// Whether there is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchEnd {
    /// The batch is full.
    More,
    /// Everything recorded so far was read.
    CaughtUp,
    /// The next record is newer than requested.
    Over,
}

/// Makes batches.
#[derive(Debug)]
pub struct Shaper {
    selection: Selection,
    /// Whether the last record of standard output and of standard error is continued.
    inside_line: [bool; 2],
    /// The last second that was written as text.
    second: Option<(u64, String)>,
    /// The unfinished piece: its stream, and where its header begins.
    open: Option<(Stream, usize)>,
    /// Whether the last batch was full.
    busy: bool,
}

impl Shaper {
    /// A new one that has read nothing yet.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            inside_line: [false; 2],
            second: None,
            open: None,
            busy: false,
        }
    }

    /// The next part.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn batch(&mut self, reader: &mut Reader) -> Result<(Batch, BatchEnd), LogError> {
        let mut batch = Batch::default();
        if self.busy {
            batch.bytes.reserve(BATCH + 2 * PIECE);
        }
        let mut seen = 0;
        let progress = loop {
            if batch.bytes.len() >= BATCH || seen >= SCAN {
                break BatchEnd::More;
            }
            match reader.next()? {
                Next::Record(record) if self.selection.until.is_some_and(|at| record.time > at) => {
                    break BatchEnd::Over;
                }
                Next::Record(record) => {
                    seen += record.payload.len() + crate::format::RECORD_HEADER;
                    self.push(&record, &mut batch);
                }
                Next::CaughtUp { .. } => break BatchEnd::CaughtUp,
            }
        };
        self.close(&mut batch);
        self.busy = progress == BatchEnd::More && !batch.bytes.is_empty();
        Ok((batch, progress))
    }

    fn push(&mut self, record: &Record<'_>, batch: &mut Batch) {
        let [out, error] = &mut self.inside_line;
        let (inside, wanted) = match record.stream {
            Stream::Stdout => (out, self.selection.stdout),
            Stream::Stderr => (error, self.selection.stderr),
        };
        let begins = !std::mem::replace(inside, record.partial);
        if !wanted || self.selection.since.is_some_and(|at| record.time < at) {
            return;
        }
        let fits = |(stream, start): (Stream, usize)| {
            let goes_on = !begins || self.selection.joined;
            stream == record.stream && goes_on && batch.bytes.len() - start < PIECE
        };
        if !self.open.is_some_and(fits) {
            self.close(batch);
            self.open = Some((record.stream, batch.bytes.len()));
            if self.selection.header.is_some() {
                batch.bytes.extend_from_slice(&[0; HEADER]);
            }
        }
        if begins {
            if let Some(text) = self.selection.times {
                self.put_time(record.time, text, &mut batch.bytes);
            }
            batch
                .bytes
                .extend_from_slice(self.selection.prefix.as_bytes());
        }
        append(&mut batch.bytes, record.payload);
        if !record.partial && !self.selection.joined {
            self.close(batch);
        }
    }

    /// Ends the unfinished piece.
    fn close(&mut self, batch: &mut Batch) {
        let Some((stream, start)) = self.open.take() else {
            return;
        };
        let end = batch.bytes.len();
        let Some(header) = self.selection.header else {
            batch.pieces.push(Piece {
                stream,
                range: start..end,
            });
            return;
        };
        if let Some(place) = batch.bytes.get_mut(start..start + HEADER) {
            place.copy_from_slice(&header(stream, end - start - HEADER));
        }
    }

    /// `2026-11-21T01:02:03.000000004Z `: nine digits always, so that the texts sort like the times.
    fn put_time(&mut self, time: u64, text: fn(u64) -> String, into: &mut Vec<u8>) {
        const SECOND: u64 = 1_000_000_000;
        let seconds = time / SECOND;
        let (_, text) = match &mut self.second {
            Some(second) if second.0 == seconds => second,
            other => other.insert((seconds, text(seconds))),
        };
        into.extend_from_slice(text.as_bytes());
        let mut fraction = *b".000000000Z ";
        let mut rest = time % SECOND;
        for digit in fraction.iter_mut().skip(1).take(9).rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        into.extend_from_slice(&fraction);
    }
}

/// Appends bytes. musl's `memcpy` is made for large copies and takes longer for a usual line.
fn append(into: &mut Vec<u8>, bytes: &[u8]) {
    const LARGE: usize = 1024;
    if bytes.len() >= LARGE {
        into.extend_from_slice(bytes);
        return;
    }
    into.reserve(bytes.len());
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        into.extend_from_slice(block);
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        into.extend_from_slice(word);
    }
    for byte in rest {
        into.push(*byte);
    }
}
