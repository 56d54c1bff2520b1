//! Reads a log while it may still be written and rotated.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::cursor::{Cursor, Found, Located};
use crate::format::{FILE_HEADER, FileHeader, IndexEntry, LOG_MAGIC, Record};
use crate::index::Index;
use crate::{LogError, rotated};

/// How many rotated files are looked for.
const MAX_FILES: u32 = 10_000;

/// The result of [`Reader::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// The next record.
    Record(Record<'a>),
    /// Everything recorded so far was read; more may follow.
    CaughtUp {
        /// The process has ended. More follows only if the container is started again.
        ended: bool,
    },
}

/// A position in a log. Reading never takes a lock and never disturbs the writer.
///
/// A new reader begins at the oldest record. A log that does not exist (yet) is empty.
pub struct Reader {
    path: PathBuf,
    /// The open directory. `path` leads through it, so that a reader can continue when the
    /// directory is moved (as a removed container's is, until it is deleted).
    _directory: Option<File>,
    current: Option<Opened>,
    /// Files of this generation and older ones have been read.
    done: u64,
    ended: bool,
}

/// The position of a record, for later use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The file's generation.
    pub generation: u64,
    /// The offset in the file.
    pub offset: u64,
}

/// An opened file of the log.
struct Opened {
    cursor: Cursor,
    header: FileHeader,
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
            ended: false,
        };
        reader.advance()?;
        Ok(reader)
    }

    /// The next record, if there is one now. After [`Next::CaughtUp`] the call may be repeated at
    /// any time. A rotation meanwhile loses nothing as long as the files exist.
    #[allow(clippy::should_implement_trait)] // The record borrows the reader's buffer.
    pub fn next(&mut self) -> Result<Next<'_>, LogError> {
        let located = self.locate()?;
        let (Some(located), Some(opened)) = (located, &mut self.current) else {
            return Ok(Next::CaughtUp { ended: self.ended });
        };
        self.ended = false;
        opened.cursor.pass(&located);
        Ok(Next::Record(Record {
            stream: located.stream,
            partial: located.partial,
            time: located.time,
            payload: opened.cursor.payload(located),
        }))
    }

    /// Finds the next record without passing it.
    fn locate(&mut self) -> Result<Option<Located>, LogError> {
        loop {
            if let Some(opened) = &mut self.current {
                match opened.cursor.find()? {
                    Found::Record(located) => return Ok(Some(located)),
                    Found::End => {
                        self.ended = true;
                        continue;
                    }
                    Found::Nothing => {}
                }
            }
            if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Goes to the oldest record.
    pub fn seek_start(&mut self) -> Result<(), LogError> {
        self.reset();
        self.advance()?;
        Ok(())
    }

    /// Goes to the end of the newest record.
    pub fn seek_end(&mut self) -> Result<(), LogError> {
        self.seek_tail(0)
    }

    /// Goes to the beginning of the last `lines` lines. A last line without a newline counts.
    pub fn seek_tail(&mut self, lines: u64) -> Result<(), LogError> {
        self.reset();
        let mut wanted = lines;
        let mut files = self.files();
        let mut chosen: Option<(Opened, u64)> = None;
        while let Some(mut opened) = files.next()? {
            let (total, unfinished) = self.count(&mut opened)?;
            let here = total + u64::from(unfinished && chosen.is_none());
            if wanted <= here {
                chosen = Some((opened, here - wanted));
                break;
            }
            wanted -= here;
            chosen = Some((opened, 0));
        }
        let Some((opened, skip)) = chosen else {
            return Ok(());
        };
        let entry = opened.index().last_where(|entry| entry.lines <= skip);
        let before = entry.map_or(0, |entry| entry.lines);
        self.enter(opened, entry);
        self.skip_lines(skip - before, lines == 0)
    }

    /// The position of the next record, or of where it will be. `None` if there is no log yet.
    pub fn position(&self) -> Option<Position> {
        let opened = self.current.as_ref()?;
        Some(Position {
            generation: opened.header.generation,
            offset: opened.cursor.position(),
        })
    }

    /// Goes to a position of another reader of this log, or to the oldest record if that file is
    /// gone.
    pub fn seek_position(&mut self, position: Position) -> Result<(), LogError> {
        self.reset();
        let mut found = None;
        let mut files = self.files();
        while let Some(opened) = files.next()? {
            if opened.header.generation <= position.generation {
                found = Some(opened).filter(|found| found.header.generation == position.generation);
                break;
            }
        }
        match found {
            Some(mut opened) => {
                opened.cursor.seek(position.offset.max(FILE_HEADER as u64));
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
        let mut files = self.files();
        let mut chosen: Option<Opened> = None;
        while let Some(opened) = files.next()? {
            let first = first_time(&opened);
            chosen = Some(opened);
            if first.is_some_and(|first| first < time) {
                break;
            }
        }
        let Some(opened) = chosen else {
            return Ok(());
        };
        let entry = opened.index().last_where(|entry| entry.time < time);
        self.enter(opened, entry);
        while let Some(located) = self.locate()? {
            if located.time >= time {
                break;
            }
            if let Some(opened) = &mut self.current {
                opened.cursor.pass(&located);
            }
        }
        Ok(())
    }

    /// The files of the log, newest first.
    fn files(&self) -> Files {
        Files {
            path: self.path.clone(),
            number: 0,
            generation: u64::MAX,
        }
    }

    fn reset(&mut self) {
        self.current = None;
        self.done = 0;
        self.ended = false;
    }

    /// Continues in a file at an index entry, or at its first record.
    fn enter(&mut self, mut opened: Opened, entry: Option<IndexEntry>) {
        opened
            .cursor
            .seek(entry.map_or(FILE_HEADER as u64, |entry| entry.offset));
        self.done = opened.header.generation;
        self.current = Some(opened);
    }

    /// Skips a number of lines, or everything.
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
    fn count(&self, opened: &mut Opened) -> Result<(u64, bool), LogError> {
        let entry = opened.index().last_where(|_| true);
        let mut lines = entry.map_or(0, |entry| entry.lines);
        let mut unfinished = false;
        let cursor = &mut opened.cursor;
        cursor.seek(entry.map_or(FILE_HEADER as u64, |entry| entry.offset));
        loop {
            match cursor.find()? {
                Found::Record(record) => {
                    unfinished = record.partial;
                    lines += u64::from(!record.partial);
                    cursor.pass(&record);
                }
                Found::End => {}
                Found::Nothing => return Ok((lines, unfinished)),
            }
        }
    }

    /// Continues with the oldest file that was not read yet. False if there is none.
    fn advance(&mut self) -> Result<bool, LogError> {
        if let Some(opened) = &self.current {
            // The usual case, which is cheap: the file that was read is still the current one.
            let newest = std::fs::metadata(&self.path).ok().map(|meta| meta.ino());
            let ours = opened.cursor.file().metadata().ok();
            if newest.is_none() || newest == ours.map(|meta| meta.ino()) {
                return Ok(false);
            }
            // Rotated: the writer may have appended between our last read and its rotation.
            if opened.cursor.has_grown()? {
                return Ok(true);
            }
        }
        let mut oldest: Option<Opened> = None;
        let mut files = self.files();
        while let Some(opened) = files.next()? {
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

/// The files of a log, newest first, while it may be rotated.
///
/// A rotation gives each file the next number, the oldest first, so at any moment at most one number
/// is missing in between. Files move in the direction in which they are visited: none is missed,
/// and one may be seen twice.
struct Files {
    path: PathBuf,
    /// The next number.
    number: u32,
    /// The generation of the last file.
    generation: u64,
}

impl Files {
    /// The next older file; `None`: there is none.
    fn next(&mut self) -> Result<Option<Opened>, LogError> {
        let mut missing = 0;
        while missing < 2 && self.number < MAX_FILES {
            let found = open_file(&rotated(&self.path, self.number))?;
            self.number += 1;
            match found {
                None => missing += 1,
                Some(opened) if opened.header.generation < self.generation => {
                    self.generation = opened.header.generation;
                    return Ok(Some(opened));
                }
                Some(_) => missing = 0,
            }
        }
        Ok(None)
    }
}

impl Opened {
    fn index(&self) -> Index {
        Index::open(self.cursor.path(), self.header)
    }
}

/// The time of a file's first record.
fn first_time(opened: &Opened) -> Option<u64> {
    let mut buffer = [0; crate::format::RECORD_HEADER];
    opened
        .cursor
        .file()
        .read_exact_at(&mut buffer, FILE_HEADER as u64)
        .ok()?;
    let time = buffer.get(12..20)?.try_into().ok()?;
    Some(u64::from_le_bytes(time))
}

/// The same file through the open descriptor of its directory, if there is one.
fn through_directory(path: &Path) -> (Option<File>, PathBuf) {
    let parts = path.parent().zip(path.file_name());
    if let Some((parent, name)) = parts
        && let Ok(directory) = File::open(parent)
    {
        let way = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        // Without procfs the path itself is used.
        if way.exists() {
            return (Some(directory), way.join(name));
        }
    }
    (None, path.to_owned())
}

/// Opens one file of a log. `None`: it does not exist, or its header is not written yet.
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
    let cursor = Cursor::new(file, path.to_owned(), FILE_HEADER as u64);
    Ok(Some(Opened { cursor, header }))
}
