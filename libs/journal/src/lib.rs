//! The store of the machine's logs.
//!
//! Each unit (`kernel`, `init`, `netcfg`, `hostd`, a service) has a directory with a chain of segment
//! files of its own. When the whole store is larger than its bound, the oldest segment of the unit
//! that occupies most goes first, so a unit that floods the store only pushes out its own lines. All
//! units share one numbering, by which readers merge their chains.
//!
//! A segment is only appended to. A record that a crash has torn, or that is damaged, is passed over
//! when the segment is read, and stays in its file: after a damaged end the next line begins a new
//! segment. A file that is no segment is renamed to `NAME.unreadable` and kept.
//!
//! Each segment has an index in memory: for about every 64 KiB the times, the numbers and the most
//! urgent priority, and for the whole segment the boots. Readers skip what can't have what they look
//! for. The index of a finished segment is in `NAME.kjx`, so that a start reads only the last segment
//! of each unit.
//!
//! There is one [`JournalWriter`] and any number of [`JournalReader`]s, all in one process.
//!
//! - [`entry`]: a line with everything that is known about it.
//! - [`format`]: headers and records as bytes. Does no I/O.
//! - [`kmsg`]: the records of `/dev/kmsg`. Does no I/O.
//! - `index`: what a segment contains, in memory and as bytes.
//! - `segment`: the names of the files, and the scan of a segment.
//! - `chain`: the segments of one unit while they are written.
//! - `shared`: what the writer and the readers know together.
//! - [`JournalWriter`]: appends lines, within the bounds.
//! - [`JournalReader`]: reads lines of all units in order, forwards, or the last ones.

mod chain;
pub mod entry;
pub mod format;
mod index;
pub mod kmsg;
mod reader;
mod segment;
mod shared;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use entry::{BootId, JournalEntry, JournalOrigin, StoredEntry};
pub use reader::{JournalFilter, JournalReader};
pub use shared::{Journal, JournalBoot, JournalUnit};
pub use writer::{JournalLimits, JournalWriter};

/// A failure of the store's files.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct JournalError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl JournalError {
    fn new(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            operation,
            path,
            source,
        }
    }

    /// Whether the disk, or the quota, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}
