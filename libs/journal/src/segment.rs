//! The files of a unit: their names, and the scan of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::JournalError;
use crate::format::{JournalRecord, SEGMENT_HEADER, SegmentHeader, scan};
use crate::index::SegmentIndex;

const SEGMENT: &str = "kj";
const INDEX: &str = "kjx";
const UNREADABLE: &str = "unreadable";

/// The file of the segment that begins with this number.
pub(crate) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:016x}.{SEGMENT}"))
}

/// The index beside a segment.
pub(crate) fn index_path(segment: &Path) -> PathBuf {
    segment.with_extension(INDEX)
}

/// What a unit's directory holds.
#[derive(Default)]
pub(crate) struct Listed {
    /// The numbers that segments begin with, ascending.
    pub(crate) segments: Vec<u64>,
    pub(crate) unreadable: Vec<PathBuf>,
}

pub(crate) fn list(directory: &Path) -> Result<Listed, JournalError> {
    let error = || JournalError::new("list", directory);
    let mut listed = Listed::default();
    for entry in fs::read_dir(directory).map_err(error())? {
        let path = entry.map_err(error())?.path();
        let extension = path.extension().and_then(|text| text.to_str());
        let stem = path.file_stem().and_then(|text| text.to_str());
        let first = stem.and_then(|text| u64::from_str_radix(text, 16).ok());
        match (extension, first) {
            (Some(SEGMENT), Some(first)) if self::path(directory, first) == path => {
                listed.segments.push(first);
            }
            (Some(UNREADABLE), _) => listed.unreadable.push(path),
            _ => {}
        }
    }
    listed.segments.sort_unstable();
    Ok(listed)
}

/// Makes a segment. `None`: the file exists.
pub(crate) fn create(path: &Path, header: SegmentHeader) -> Result<Option<File>, JournalError> {
    let opened = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(JournalError::new("create", path)(error)),
    };
    if let Err(error) = io::Write::write_all(&mut file, &header.encode()) {
        // Nothing is in it yet.
        let _ = fs::remove_file(path);
        return Err(JournalError::new("write", path)(error));
    }
    Ok(Some(file))
}

/// Reads a whole segment. `None`: it is none.
pub(crate) fn read(
    path: &Path,
    mut take: impl FnMut(&JournalRecord<'_>),
) -> Result<Option<SegmentIndex>, JournalError> {
    let bytes = fs::read(path).map_err(JournalError::new("read", path))?;
    if SegmentHeader::decode(&bytes).is_none() {
        return Ok(None);
    }
    let body = bytes.get(SEGMENT_HEADER..).unwrap_or_default();
    let mut index = SegmentIndex::new();
    let (end, damaged) = scan(body, |at, record| {
        take(&record);
        let start = (SEGMENT_HEADER + at) as u64;
        let length = crate::format::RECORD_HEADER + record.text.len();
        index.add(start, start + length as u64, &record);
    });
    index.end = (SEGMENT_HEADER + end) as u64;
    index.damaged = damaged;
    Ok(Some(index))
}

/// The index of a finished segment: from its file, or else from the segment. `None`: it is none.
pub(crate) fn index(path: &Path) -> Result<Option<SegmentIndex>, JournalError> {
    let kept = fs::read(index_path(path)).ok();
    let length = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let kept = kept.and_then(|bytes| SegmentIndex::decode(&bytes));
    if let Some(index) = kept.filter(|index| index.end <= length) {
        return Ok(Some(index));
    }
    let index = read(path, |_| {})?;
    if let Some(index) = &index {
        store_index(path, index);
    }
    Ok(index)
}

/// Writes the index of a finished segment. It only saves time: without it the segment is read.
pub(crate) fn store_index(path: &Path, index: &SegmentIndex) {
    let _ = fs::write(index_path(path), index.encode());
}

/// Keeps a file that can't be read, under another name.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let aside = path.with_extension(UNREADABLE);
    fs::rename(path, &aside).map_err(JournalError::new("rename", path))?;
    Ok(aside)
}

/// Removes a segment and its index.
pub(crate) fn remove(path: &Path) -> Result<(), JournalError> {
    let _ = fs::remove_file(index_path(path));
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(JournalError::new("remove", path)(error))
        }
        _ => Ok(()),
    }
}
