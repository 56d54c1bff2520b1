//! Files that must stay the same file when their content changes.

use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::{FileError, failed};

/// The longest file that is changed so. Whoever holds the file may make it any length, and its length
/// is taken in memory.
pub const LONGEST_OVERWRITTEN: usize = 4 << 20;

/// Gives a file of lines other ones, in place: others have mounted it or hold it open. It is not
/// replaced, so this is the least that can go wrong:
/// * the room is there before anything is changed, so that a full disk leaves the old lines;
/// * one write changes all lines, with empty ones in the place of those that are too many, and only
///   then the file gets shorter: no reader finds it empty or cut off, and a kill in between leaves
///   the new lines. Whoever reads during the write itself, or after a power cut in it, may find
///   parts of both.
///
/// # Errors
/// [`FileError`]. The file is then as before, except if the disk itself fails. A link is not
/// followed, and a file longer than [`LONGEST_OVERWRITTEN`] is refused.
pub fn overwrite(path: &Path, lines: &[u8]) -> Result<(), FileError> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed("open", path))?;
    let found = rustix::fs::fstat(&file).map_err(failed("open", path))?;
    let length = usize::try_from(found.st_size).unwrap_or(usize::MAX);
    if length.max(lines.len()) > LONGEST_OVERWRITTEN {
        return Err(failed("write", path)(Errno::FBIG));
    }
    let mut padded = lines.to_vec();
    padded.resize(lines.len().max(length), b'\n');
    match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, padded.len() as u64) {
        // The file system can't reserve room; or nothing is written.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(error) => return Err(failed("write", path)(error)),
    }
    let mut rest = padded.as_slice();
    let mut offset = 0;
    // Only a signal or a failing disk divides it.
    while !rest.is_empty() {
        let written = rustix::io::pwrite(&file, rest, offset).map_err(failed("write", path))?;
        rest = rest.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    if padded.len() != lines.len() {
        rustix::fs::ftruncate(&file, lines.len() as u64).map_err(failed("write", path))?;
    }
    Ok(())
}
