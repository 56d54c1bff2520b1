//! The container log format: framed, rotated, indexed records.
//!
//! A container's log is a list of files: `LOG` is written to, `LOG.1`, `LOG.2`, … are the
//! rotated ones, newest first. Each file starts with a header ([`format::FileHeader`]) that
//! carries a generation number, one higher in every newer file, and continues with records
//! ([`format`]). A record is one line of output with its newline, or a piece of a line: a piece
//! that does not end the line is marked *partial*. Output is recorded as soon as it is read, so
//! joining the payloads of one stream yields exactly the bytes that the process wrote.
//!
//! Beside a file there is `FILE.idx` as soon as it has an entry: an array of fixed-size entries,
//! one for about every 64 KiB of log, with position, time and number of lines.
//! [`Reader::seek_tail`] and [`Reader::seek_since`] search there and never scan a long log from its
//! start. The index only saves time: if it is missing, short or belongs to another generation, the
//! log is scanned instead.
//!
//! There is one [`Writer`] for a log and any number of [`Reader`]s, in any process, without
//! locks: data are only ever appended, and a record that is not complete yet is not shown.
//!
//! - [`format`]: headers and records as bytes.
//! - [`Writer`]: appends records and rotates files.
//! - `index`: the entries of `FILE.idx`.
//! - `cursor`: the records of one file, also after damage.
//! - [`Reader`]: reads records, from the start, the end or a time on, and follows the log.
//! - [`shape`]: records as lines for clients, many at once.

mod cursor;
pub mod format;
mod index;
mod reader;
pub mod shape;
mod writer;

pub use format::{MAX_PAYLOAD, Record, Stream};
pub use reader::{Next, Position, Reader};
pub use writer::{Rotation, Writer};

use std::path::{Path, PathBuf};

/// A failure of the log's files.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A system call failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// The operation: `open`, `write`, ….
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a log, or has an unknown version.
    #[error("{path}: {reason}")]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl LogError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

/// The name of the `number`th rotated file of a log; 0 is the current one.
fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    with_suffix(path, &format!(".{number}"))
}

/// The index that belongs to a log file.
fn index_path(file: &Path) -> PathBuf {
    with_suffix(file, ".idx")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a log with all its rotated files and indexes. Files that do not exist are no error.
pub fn remove(path: &Path) -> Result<(), LogError> {
    for number in 0.. {
        let file = rotated(path, number);
        let existed = remove_file(&file)?;
        remove_file(&index_path(&file))?;
        // A rotation renames from the oldest to the newest, so a crash in the middle leaves at most
        // one number without a file.
        if !existed && number > 0 && !rotated(path, number + 1).exists() {
            break;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<bool, LogError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::io("remove", path)(error)),
    }
}
