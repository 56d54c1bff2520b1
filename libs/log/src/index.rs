//! Reading a log file's index: binary search in a file of fixed-size entries.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::format::{FILE_HEADER, FileHeader, INDEX_ENTRY, INDEX_MAGIC, IndexEntry};
use crate::index_path;

/// An opened index. A damaged or foreign index is one without entries.
pub(crate) struct Index {
    file: Option<File>,
    count: u64,
}

impl Index {
    /// Opens the index of a log file with a given header.
    pub(crate) fn open(log: &Path, header: FileHeader) -> Self {
        Self::try_open(log, header).unwrap_or(Self {
            file: None,
            count: 0,
        })
    }

    fn try_open(log: &Path, header: FileHeader) -> Option<Self> {
        let file = File::open(index_path(log)).ok()?;
        let mut found = [0; FILE_HEADER];
        file.read_exact_at(&mut found, 0).ok()?;
        // A rotation may have renamed the files between the two opens. And a short log has no
        // index, but there may be the index of an earlier log.
        if FileHeader::decode(&found, INDEX_MAGIC).ok()? != header {
            return None;
        }
        let length = file.metadata().ok()?.len();
        let count = length.saturating_sub(FILE_HEADER as u64) / INDEX_ENTRY as u64;
        Some(Self {
            file: Some(file),
            count,
        })
    }

    /// Whether this log file has an index.
    pub(crate) fn is_there(&self) -> bool {
        self.file.is_some()
    }

    fn entry(&self, number: u64) -> Option<IndexEntry> {
        let mut bytes = [0; INDEX_ENTRY];
        let offset = FILE_HEADER as u64 + number * INDEX_ENTRY as u64;
        self.file.as_ref()?.read_exact_at(&mut bytes, offset).ok()?;
        IndexEntry::decode(&bytes)
    }

    /// The last entry for which `before` holds. Entries are sorted, so it holds for the first ones
    /// only. For damaged entries it counts as false.
    pub(crate) fn last_where(&self, before: impl Fn(&IndexEntry) -> bool) -> Option<IndexEntry> {
        let number = self.partition(&before).checked_sub(1)?;
        self.entry(number)
    }

    /// How many leading entries satisfy `before`.
    pub(crate) fn partition(&self, before: &impl Fn(&IndexEntry) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle).as_ref().is_some_and(before) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
