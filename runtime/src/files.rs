//! Reads and writes whole small files. The standard library's functions make more system calls:
//! with musl they set close-on-exec twice, and they ask for the size, which these files do not know
//! beforehand.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Reads a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    const FIRST: usize = 16 * 1024;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::with_capacity(FIRST);
    loop {
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.capacity() == bytes.len() => bytes.reserve(bytes.len()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a file as a whole: readers find the old file, or none, until the new one is complete. It
/// is not flushed to disk. A file at the temporary name is overwritten, and removed if this fails.
pub(crate) fn replace(path: &Path, temporary: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::open(temporary, flags, Mode::from_raw_mode(mode))?;
    let replaced = write(&file, bytes).and_then(|()| {
        drop(file);
        rustix::fs::rename(temporary, path)
    });
    if replaced.is_err() {
        let _ = rustix::fs::unlink(temporary);
    }
    Ok(replaced?)
}

/// The same through a temporary file that exists already. Its space is reused, so that nothing new
/// is allocated.
pub(crate) fn fill(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = rustix::fs::open(temporary, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, bytes)?;
    rustix::fs::ftruncate(&file, bytes.len() as u64)?;
    Ok(rustix::fs::rename(temporary, path)?)
}

fn write(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_size_are_read_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 100_000] {
            let bytes: Vec<u8> = (0..size).map(|number| number as u8).collect();
            replace(&path, &directory.path().join("new"), &bytes, 0o600).unwrap();
            assert_eq!(read(&path).unwrap(), bytes, "{size}");
        }
        assert!(read(&directory.path().join("none")).is_err());
        let occupied = directory.path().join("folder");
        std::fs::create_dir(&occupied).unwrap();
        assert!(replace(&occupied, &directory.path().join("new"), b"x", 0o600).is_err());
        assert!(!directory.path().join("new").exists());
    }
}
