//! Reading a log while it may still be written and rotated.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::format::{
    Decoded, FILE_HEADER, FileHeader, IndexEntry, LOG_MAGIC, Record, Stream, decode,
};
use crate::index::Index;
use crate::{LogError, rotated};

/// How many bytes are read at once.
const CHUNK: usize = 128 * 1024;
/// More rotated files than this are not looked for.
const MAX_FILES: u32 = 10_000;

/// What [`Reader::next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// The next record.
    Record(Record<'a>),
    /// Everything recorded so far was read; more may follow.
    CaughtUp {
        /// The process that wrote has ended: more follows only when the container is started
        /// again.
        ended: bool,
    },
}

/// A position in a log. Reading never takes a lock and never disturbs the writer.
///
/// A new reader stands at the oldest record. A log that does not exist (yet) is empty.
pub struct Reader {
    path: PathBuf,
    /// Holds the directory: `path` leads through it, so that a reader continues where the directory
    /// is moved to (a removed container's log until it is deleted).
    _directory: Option<File>,
    current: Option<Opened>,
    /// Files of this generation and older ones have been read.
    done: u64,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
}

/// The place of a record that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of the file.
    pub generation: u64,
    /// In the file.
    pub offset: u64,
}

/// A record in the buffer.
struct Located {
    stream: Stream,
    partial: bool,
    time: u64,
    payload: Range<usize>,
}

/// An opened file of the log.
struct Opened {
    file: File,
    path: PathBuf,
    header: FileHeader,
    /// Offset in the file of the end of what is in the buffer.
    offset: u64,
}

impl Reader {
    /// Opens a log at its oldest record.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let (directory, path) = through_directory(path);
        let mut reader = Self {
            path,
            _directory: directory,
            current: None,
            done: 0,
            buffer: Vec::new(),
            start: 0,
            ended: false,
        };
        reader.advance()?;
        Ok(reader)
    }

    /// The next record, or that there is none now. After [`Next::CaughtUp`] the call may be
    /// repeated at any time; rotation in between loses nothing as long as the files exist.
    #[allow(clippy::should_implement_trait)] // The record borrows the reader's buffer.
    pub fn next(&mut self) -> Result<Next<'_>, LogError> {
        let Some(located) = self.locate()? else {
            return Ok(Next::CaughtUp { ended: self.ended });
        };
        self.start = located.payload.end;
        self.ended = false;
        Ok(Next::Record(Record {
            stream: located.stream,
            partial: located.partial,
            time: located.time,
            payload: self.buffer.get(located.payload).unwrap_or_default(),
        }))
    }

    /// Finds the next record in the buffer, which is filled when needed, without passing it.
    fn locate(&mut self) -> Result<Option<Located>, LogError> {
        loop {
            match decode(self.buffer.get(self.start..).unwrap_or_default()) {
                Decoded::Record(record, taken) => {
                    let end = self.start + taken;
                    return Ok(Some(Located {
                        stream: record.stream,
                        partial: record.partial,
                        time: record.time,
                        payload: end - record.payload.len()..end,
                    }));
                }
                Decoded::End(taken) => {
                    self.start += taken;
                    self.ended = true;
                }
                Decoded::Incomplete => {
                    if !self.fill()? && !self.advance()? {
                        return Ok(None);
                    }
                }
                Decoded::Invalid => {
                    if !self.skip_damage() && !self.advance()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Goes to the oldest record.
    pub fn seek_start(&mut self) -> Result<(), LogError> {
        self.reset();
        self.advance()?;
        Ok(())
    }

    /// Goes behind the newest record.
    pub fn seek_end(&mut self) -> Result<(), LogError> {
        self.seek_tail(0)
    }

    /// Goes to where the last `lines` lines begin. A last line without newline counts.
    pub fn seek_tail(&mut self, lines: u64) -> Result<(), LogError> {
        self.reset();
        let mut wanted = lines;
        let mut number = 0;
        let mut chosen: Option<(Opened, u64)> = None;
        while let Some(opened) = open_file(&rotated(&self.path, number))? {
            // A rotation since the last step shows the same file again.
            if chosen
                .as_ref()
                .is_some_and(|(newer, _)| newer.header.generation <= opened.header.generation)
            {
                number += 1;
                continue;
            }
            let (total, unfinished) = self.count(&opened)?;
            let here = total + u64::from(unfinished && number == 0);
            if wanted <= here {
                chosen = Some((opened, here - wanted));
                break;
            }
            wanted -= here;
            chosen = Some((opened, 0));
            number += 1;
            if number > MAX_FILES {
                break;
            }
        }
        let Some((opened, skip)) = chosen else {
            return Ok(());
        };
        let index = Index::open(&opened.path, opened.header);
        let entry = index.last_where(|entry| entry.lines <= skip);
        let before = entry.map_or(0, |entry| entry.lines);
        self.enter(opened, entry);
        self.skip_lines(skip - before, lines == 0)
    }

    /// Where the next record is, or will be; `None` when there is no log yet.
    pub fn position(&self) -> Option<Position> {
        let opened = self.current.as_ref()?;
        let unread = self.buffer.len().saturating_sub(self.start) as u64;
        Some(Position {
            generation: opened.header.generation,
            offset: opened.offset.saturating_sub(unread),
        })
    }

    /// Goes to where a reader of this log was, or to the oldest record when that file is gone.
    pub fn seek_position(&mut self, position: Position) -> Result<(), LogError> {
        self.reset();
        let mut found = None;
        for number in 0..MAX_FILES {
            let Some(opened) = open_file(&rotated(&self.path, number))? else {
                if number == 0 {
                    continue;
                }
                break;
            };
            if opened.header.generation <= position.generation {
                found = Some(opened).filter(|found| found.header.generation == position.generation);
                break;
            }
        }
        match found {
            Some(mut opened) => {
                opened.offset = position.offset.max(FILE_HEADER as u64);
                self.done = opened.header.generation;
                self.current = Some(opened);
            }
            None => {
                self.advance()?;
            }
        }
        Ok(())
    }

    /// Goes to the first record that is not older than `time` (nanoseconds since 1970).
    pub fn seek_since(&mut self, time: u64) -> Result<(), LogError> {
        self.reset();
        let mut number = 0;
        let mut chosen: Option<Opened> = None;
        while let Some(opened) = open_file(&rotated(&self.path, number))? {
            let first = first_time(&opened);
            chosen = Some(opened);
            number += 1;
            if first.is_some_and(|first| first < time) || number > MAX_FILES {
                break;
            }
        }
        let Some(opened) = chosen else {
            return Ok(());
        };
        let index = Index::open(&opened.path, opened.header);
        let entry = index.last_where(|entry| entry.time < time);
        self.enter(opened, entry);
        while let Some(located) = self.locate()? {
            if located.time >= time {
                break;
            }
            self.start = located.payload.end;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.current = None;
        self.done = 0;
        self.buffer.clear();
        self.start = 0;
        self.ended = false;
    }

    /// Continues in a file at an index entry, or at its first record.
    fn enter(&mut self, mut opened: Opened, entry: Option<IndexEntry>) {
        opened.offset = entry.map_or(FILE_HEADER as u64, |entry| entry.offset);
        self.done = opened.header.generation;
        self.buffer.clear();
        self.start = 0;
        self.current = Some(opened);
    }

    /// Passes over a number of lines, or over everything.
    fn skip_lines(&mut self, mut lines: u64, all: bool) -> Result<(), LogError> {
        while lines > 0 || all {
            match self.next()? {
                Next::Record(record) => lines -= u64::from(!record.partial).min(lines),
                Next::CaughtUp { .. } => break,
            }
        }
        Ok(())
    }

    /// Counts a file's lines from its last index entry on. Also returns whether its last record is
    /// a line that continues.
    fn count(&self, opened: &Opened) -> Result<(u64, bool), LogError> {
        let index = Index::open(&opened.path, opened.header);
        let entry = index.last_where(|_| true);
        let mut lines = entry.map_or(0, |entry| entry.lines);
        let mut offset = entry.map_or(FILE_HEADER as u64, |entry| entry.offset);
        let mut unfinished = false;
        let mut buffer = Vec::new();
        while read_more(&opened.file, &opened.path, &mut buffer, offset)? > 0 {
            let mut used = 0;
            loop {
                used += match decode(buffer.get(used..).unwrap_or_default()) {
                    Decoded::Record(record, taken) => {
                        unfinished = record.partial;
                        lines += u64::from(!record.partial);
                        taken
                    }
                    Decoded::End(taken) => taken,
                    Decoded::Incomplete | Decoded::Invalid => break,
                };
            }
            if used == 0 {
                break;
            }
            offset += used as u64;
            buffer.clear();
        }
        Ok((lines, unfinished))
    }

    /// Reads more of the current file; false when it has no more now.
    fn fill(&mut self) -> Result<bool, LogError> {
        let Some(opened) = &mut self.current else {
            return Ok(false);
        };
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        let read = read_more(&opened.file, &opened.path, &mut self.buffer, opened.offset)?;
        opened.offset += read as u64;
        Ok(read > 0)
    }

    /// After damaged data, continues at the next index entry of the file; false when there is none.
    fn skip_damage(&mut self) -> bool {
        let Some(opened) = &mut self.current else {
            return false;
        };
        let unread = self.buffer.len().saturating_sub(self.start) as u64;
        let position = opened.offset.saturating_sub(unread);
        let index = Index::open(&opened.path, opened.header);
        let Some(entry) = index.first_after(position) else {
            return false;
        };
        opened.offset = entry.offset;
        self.buffer.clear();
        self.start = 0;
        true
    }

    /// Continues with the oldest file that was not read yet; false when there is none.
    fn advance(&mut self) -> Result<bool, LogError> {
        if self.current.is_some() {
            // The cheap and usual case: the file that was read is still the current one.
            let newest = std::fs::metadata(&self.path).ok().map(|meta| meta.ino());
            let ours = self
                .current
                .as_ref()
                .and_then(|opened| opened.file.metadata().ok())
                .map(|meta| meta.ino());
            if newest.is_none() || newest == ours {
                return Ok(false);
            }
            // Rotated: the writer may have appended between our last read and its rotation.
            if self.start >= self.buffer.len() && self.fill()? {
                return Ok(true);
            }
        }
        let mut oldest: Option<Opened> = None;
        for number in 0..MAX_FILES {
            let Some(opened) = open_file(&rotated(&self.path, number))? else {
                if number == 0 {
                    continue;
                }
                break;
            };
            if opened.header.generation <= self.done {
                break;
            }
            oldest = Some(opened);
        }
        let Some(opened) = oldest else {
            return Ok(false);
        };
        self.enter(opened, None);
        Ok(true)
    }
}

/// The time of a file's first record.
fn first_time(opened: &Opened) -> Option<u64> {
    let mut buffer = vec![0; crate::format::RECORD_HEADER];
    opened
        .file
        .read_exact_at(&mut buffer, FILE_HEADER as u64)
        .ok()?;
    let time = buffer.get(12..20)?.try_into().ok()?;
    Some(u64::from_le_bytes(time))
}

/// Appends up to [`CHUNK`] bytes from a position of a file to the buffer.
fn read_more(
    file: &File,
    path: &Path,
    buffer: &mut Vec<u8>,
    offset: u64,
) -> Result<usize, LogError> {
    let kept = buffer.len();
    buffer.resize(kept + CHUNK, 0);
    let read = file
        .read_at(buffer.get_mut(kept..).unwrap_or_default(), offset)
        .map_err(LogError::io("read", path));
    let length = *read.as_ref().unwrap_or(&0);
    buffer.truncate(kept + length);
    read
}

/// Opens one file of a log. `None`: it does not exist, or its header is not written yet.
/// The same file by way of an open descriptor of its directory, where there is one.
fn through_directory(path: &Path) -> (Option<File>, PathBuf) {
    let parts = path.parent().zip(path.file_name());
    if let Some((parent, name)) = parts
        && let Ok(directory) = File::open(parent)
    {
        let way = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        // Without procfs the path itself must do.
        if way.exists() {
            return (Some(directory), way.join(name));
        }
    }
    (None, path.to_owned())
}

fn open_file(path: &Path) -> Result<Option<Opened>, LogError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("open", path)(error)),
    };
    let mut bytes = [0; FILE_HEADER];
    let length = file
        .read_at(&mut bytes, 0)
        .map_err(LogError::io("read", path))?;
    if length < FILE_HEADER {
        return Ok(None);
    }
    let header = FileHeader::decode(&bytes, LOG_MAGIC).map_err(|reason| LogError::NotALog {
        path: path.to_owned(),
        reason,
    })?;
    Ok(Some(Opened {
        file,
        path: path.to_owned(),
        header,
        offset: FILE_HEADER as u64,
    }))
}
