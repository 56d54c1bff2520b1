//! The records of one file, in order. Damaged data is skipped up to the next complete record.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::LogError;
use crate::format::{Decoded, Stream, decode, next_whole};

/// How many bytes are read at first. It doubles while there is more.
const FIRST_CHUNK: usize = 16 << 10;
const LARGEST_CHUNK: usize = 256 << 10;

/// A position in a file, and the bytes that were read after it.
pub(crate) struct Cursor {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    /// The part of the buffer that was read and not passed yet.
    unread: Range<usize>,
    /// Offset in the file of the end of the bytes that were read.
    offset: u64,
    /// Offset of the end of the file when there was nothing more.
    end: u64,
    chunk: usize,
}

/// The next object.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// A record. It is not passed yet.
    Record(Located),
    /// The mark that the process's output ended. It is passed.
    End,
    /// Nothing complete.
    Nothing,
}

/// A record in the buffer.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) stream: Stream,
    pub(crate) partial: bool,
    pub(crate) time: u64,
    payload: Range<usize>,
}

impl Cursor {
    pub(crate) fn new(file: File, path: PathBuf, offset: u64) -> Self {
        Self {
            file,
            path,
            buffer: Vec::new(),
            unread: 0..0,
            offset,
            end: 0,
            chunk: FIRST_CHUNK,
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Offset in the file of the next object.
    pub(crate) fn position(&self) -> u64 {
        self.offset.saturating_sub(self.unread.len() as u64)
    }

    /// Goes to an offset, and drops the buffer.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.buffer = Vec::new();
        self.unread = 0..0;
        self.offset = offset;
        self.chunk = FIRST_CHUNK;
    }

    /// Finds the next object. After [`Found::Nothing`] the position is unchanged: an incomplete
    /// record may become complete, or be cut off and written again.
    pub(crate) fn find(&mut self) -> Result<Found, LogError> {
        let begin = self.position();
        loop {
            let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
            let incomplete = match decode(unread) {
                Decoded::Record(record, taken) => {
                    let end = self.unread.start + taken;
                    return Ok(Found::Record(Located {
                        stream: record.stream,
                        partial: record.partial,
                        time: record.time,
                        payload: end - record.payload.len()..end,
                    }));
                }
                Decoded::End(taken) => {
                    self.unread.start += taken;
                    return Ok(Found::End);
                }
                Decoded::Incomplete => true,
                Decoded::Invalid => false,
            };
            if incomplete && self.fill()? {
                continue;
            }
            let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
            match next_whole(unread) {
                Ok(at) => self.unread.start += at,
                // Nothing complete begins before this.
                Err(open) if !incomplete => {
                    self.unread.start += open;
                    if !self.fill()? {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        self.end = self.offset;
        self.seek(begin);
        Ok(Found::Nothing)
    }

    /// Passes a record that was found.
    pub(crate) fn pass(&mut self, located: &Located) {
        self.unread.start = located.payload.end;
    }

    /// The payload of a record that was found or passed last.
    pub(crate) fn payload(&self, located: Located) -> &[u8] {
        self.buffer.get(located.payload).unwrap_or_default()
    }

    /// Whether the file has grown since nothing more was found.
    pub(crate) fn has_grown(&self) -> Result<bool, LogError> {
        let found = self.file.metadata();
        let found = found.map_err(LogError::io("stat", &self.path))?;
        Ok(found.len() > self.end)
    }

    /// Reads more bytes. False if the file has no more now.
    fn fill(&mut self) -> Result<bool, LogError> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let wanted = self.unread.end + self.chunk;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let room = self.buffer.get_mut(self.unread.end..wanted);
        let read = self
            .file
            .read_at(room.unwrap_or_default(), self.offset)
            .map_err(LogError::io("read", &self.path))?;
        self.unread.end += read;
        self.offset += read as u64;
        self.chunk = (self.chunk * 2).min(LARGEST_CHUNK);
        Ok(read > 0)
    }
}
