//! Hints about when dirty pages of a file are written to disk.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Starts the write-back of a part of a file without waiting for it, by sync_file_range(2). This
/// is a hint: it makes nothing durable, and where the file system does not know it, nothing
/// happens.
pub fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return;
    };
    // SAFETY: the call takes a descriptor that is open for the call's duration and three
    // integers; it touches no memory of this process.
    let _ = unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
}
