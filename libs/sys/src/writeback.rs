//! Hints about when dirty pages of a file are written to disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Starts the write-back of a part of a file (all from `offset` on when `length` is 0) without
/// waiting for it, by sync_file_range(2). This is a hint: it makes nothing durable, and has no
/// effect if the file system does not support it.
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

/// Writes all dirty pages of a file to disk and waits for it, by sync_file_range(2). Metadata is
/// not written, so this alone makes nothing durable. If it is called before the fsync(2) of several
/// files, one commit of the file system's journal is enough for all of them. It has no effect if
/// the file system does not support the call.
///
/// # Errors
/// A write that failed, now or earlier; fsync of the same descriptor does not report it again.
pub fn wait(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: as above; zero bytes from zero on mean the whole file.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
    }
}
