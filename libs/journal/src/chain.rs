//! The segments of one unit, while they are written.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::JournalError;
use crate::entry::{BootId, JournalEntry, JournalOrigin, LONGEST_TEXT};
use crate::format::{JournalRecord, RECORD_HEADER, SegmentHeader, encode_record};
use crate::index::SegmentIndex;
use crate::segment;
use crate::shared::SegmentView;

/// How far a source is stored: the boot, and the position.
pub(crate) type Origins = BTreeMap<u64, (BootId, JournalOrigin)>;
/// How many sources are remembered for a unit: services that were made anew have another one.
const MOST_ORIGINS: usize = 16;

/// The chain of a unit.
pub(crate) struct Chain {
    directory: PathBuf,
    /// The segment that is written to. `None`: the next line begins one.
    current: Option<Current>,
    pub(crate) segments: Vec<SegmentView>,
    pub(crate) origins: Origins,
    /// Something was written that may not be on the disk.
    dirty: bool,
    /// A file was made that may not be on the disk.
    new_file: bool,
}

struct Current {
    file: File,
    created: u64,
}

/// What was found of a chain, for the whole store.
#[derive(Default)]
pub(crate) struct Opened {
    /// The highest number.
    pub(crate) last: u64,
    /// The boot of that line.
    pub(crate) boot: Option<BootId>,
    pub(crate) unreadable: Vec<PathBuf>,
}

impl Chain {
    /// A chain without segments.
    pub(crate) fn create(directory: PathBuf) -> Result<Self, JournalError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(JournalError::new("make directory", &directory))?;
        Ok(Self {
            directory,
            current: None,
            segments: Vec::new(),
            origins: Origins::new(),
            dirty: false,
            new_file: true,
        })
    }

    /// Reads what is there.
    pub(crate) fn open(directory: PathBuf) -> Result<(Self, Opened), JournalError> {
        let listed = segment::list(&directory)?;
        let mut chain = Self::create(directory)?;
        let mut opened = Opened {
            unreadable: listed.unreadable,
            ..Opened::default()
        };
        for (position, first) in listed.segments.iter().enumerate() {
            let path = segment::path(&chain.directory, *first);
            // The last one is read for the positions of the sources, which each segment repeats.
            let last = position + 1 == listed.segments.len();
            let index = match last {
                true => segment::read(&path, |record| {
                    remember(&mut chain.origins, record.boot, record.origin);
                    opened.boot = Some(record.boot);
                })?,
                false => segment::index(&path)?,
            };
            let Some(index) = index else {
                opened.unreadable.push(segment::set_aside(&path)?);
                continue;
            };
            opened.last = opened.last.max(index.span.last).max(*first);
            if last {
                chain.resume(&path, &index)?;
            }
            let size = fs::metadata(&path).map_or(index.end, |metadata| metadata.len());
            chain.segments.push(SegmentView {
                path,
                first: *first,
                index: Arc::new(index),
                size,
            });
        }
        if chain.origins.is_empty()
            && let Some(newest) = chain.segments.last()
        {
            segment::read(&newest.path, |record| {
                remember(&mut chain.origins, record.boot, record.origin);
                opened.boot = Some(record.boot);
            })?;
        }
        Ok((chain, opened))
    }

    /// Goes on with a segment. After a damaged end the next line begins a new one instead, so that
    /// nothing is cut off that somebody may want to look at.
    fn resume(&mut self, path: &Path, index: &SegmentIndex) -> Result<(), JournalError> {
        if index.damaged {
            segment::store_index(path, index);
            return Ok(());
        }
        let file = OpenOptions::new()
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(JournalError::new("open", path))?;
        let created = index.span.earliest;
        self.current = Some(Current { file, created });
        Ok(())
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Appends lines with their numbers: all of them, or none.
    pub(crate) fn write(
        &mut self,
        lines: &[(u64, JournalEntry)],
        segment_size: u64,
    ) -> Result<(), JournalError> {
        let Some((number, newest)) = lines.first() else {
            return Ok(());
        };
        let full = |segment: &SegmentView| segment.size >= segment_size;
        if self.current.is_some() && self.segments.last().is_some_and(full) {
            self.finish();
        }
        if self.current.is_none() {
            self.begin(*number, newest)?;
        }
        let (Some(current), Some(view)) = (&mut self.current, self.segments.last_mut()) else {
            return Ok(());
        };
        let mut index = SegmentIndex::clone(&view.index);
        let mut bytes = Vec::new();
        for (sequence, entry) in lines {
            append(&mut bytes, &mut index, record(*sequence, entry));
        }
        if let Err(error) = current.file.write_all(&bytes) {
            // The part that was written must not stay between this line and the next.
            let _ = current.file.set_len(view.size);
            return Err(JournalError::new("write", &view.path)(error));
        }
        view.size += bytes.len() as u64;
        view.index = Arc::new(index);
        self.dirty = true;
        for (_, entry) in lines {
            remember(&mut self.origins, entry.boot, entry.origin);
        }
        Ok(())
    }

    /// Begins a segment. It repeats how far each source is stored.
    fn begin(&mut self, first: u64, newest: &JournalEntry) -> Result<(), JournalError> {
        let path = segment::path(&self.directory, first);
        let header = SegmentHeader {
            first,
            created: newest.time,
        };
        let mut index = SegmentIndex::new();
        let mut bytes = Vec::new();
        for (boot, origin) in self.origins.values() {
            let mut record = record(0, newest);
            record.boot = *boot;
            record.origin = Some(*origin);
            record.only_origin = true;
            record.text = b"";
            append(&mut bytes, &mut index, record);
        }
        let Some(mut file) = segment::create(&path, header)? else {
            // A number is used once. The file is of somebody else.
            let exists = std::io::ErrorKind::AlreadyExists.into();
            return Err(JournalError::new("create", &path)(exists));
        };
        if let Err(error) = file.write_all(&bytes) {
            let _ = fs::remove_file(&path);
            return Err(JournalError::new("write", &path)(error));
        }
        self.current = Some(Current {
            file,
            created: newest.time,
        });
        self.segments.push(SegmentView {
            path,
            first,
            size: index.end,
            index: Arc::new(index),
        });
        self.new_file = true;
        Ok(())
    }

    /// Ends the segment that is written to.
    fn finish(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        if self.dirty {
            // What fails here fails again when the next segment is written.
            let _ = current.file.sync_data();
        }
        if let Some(view) = self.segments.last() {
            segment::store_index(&view.path, &view.index);
        }
    }

    /// Ends the segment that is written to if its first line is older than `age`.
    pub(crate) fn finish_older(&mut self, now: u64, age: Duration) {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let created = self.current.as_ref().map(|current| current.created);
        if created.is_some_and(|created| now.saturating_sub(created) > age) {
            self.finish();
        }
    }

    /// Whether a segment is there that may be removed.
    pub(crate) fn has_finished(&self) -> bool {
        self.segments.len() > usize::from(self.current.is_some())
    }

    /// The time of the newest line in the oldest finished segment.
    pub(crate) fn oldest_finished(&self) -> Option<u64> {
        let oldest = self.segments.first().filter(|_| self.has_finished())?;
        Some(oldest.index.span.latest)
    }

    /// Removes the oldest segment, and returns the highest number in it.
    pub(crate) fn remove_oldest(&mut self) -> Result<u64, JournalError> {
        if !self.has_finished() || self.segments.is_empty() {
            return Ok(0);
        }
        let oldest = self.segments.remove(0);
        segment::remove(&oldest.path)?;
        Ok(oldest.index.span.last)
    }

    /// Brings what was written to the disk.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        if let (true, Some(current), Some(view)) = (self.dirty, &self.current, self.segments.last())
        {
            let synced = current.file.sync_data();
            synced.map_err(JournalError::new("synchronise", &view.path))?;
        }
        self.dirty = false;
        if self.new_file {
            let directory = File::open(&self.directory).and_then(|file| file.sync_all());
            directory.map_err(JournalError::new("synchronise", &self.directory))?;
        }
        self.new_file = false;
        Ok(())
    }
}

fn remember(origins: &mut Origins, boot: BootId, origin: Option<JournalOrigin>) {
    let Some(origin) = origin else {
        return;
    };
    origins.insert(origin.source, (boot, origin));
    if origins.len() > MOST_ORIGINS
        && let Some(other) = origins
            .keys()
            .find(|source| **source != origin.source)
            .copied()
    {
        origins.remove(&other);
    }
}

fn record(sequence: u64, entry: &JournalEntry) -> JournalRecord<'_> {
    JournalRecord {
        sequence,
        time: entry.time,
        uptime: entry.uptime,
        boot: entry.boot,
        priority: entry.priority,
        continues: entry.continues,
        only_origin: false,
        origin: entry.origin,
        text: cut(&entry.text).as_bytes(),
    }
}

/// A text that is not longer than one may be.
fn cut(text: &str) -> &str {
    let mut length = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    text.get(..length).unwrap_or_default()
}

fn append(bytes: &mut Vec<u8>, index: &mut SegmentIndex, record: JournalRecord<'_>) {
    encode_record(bytes, &record);
    let length = (RECORD_HEADER + record.text.len()) as u64;
    index.add(index.end, index.end + length, &record);
}
