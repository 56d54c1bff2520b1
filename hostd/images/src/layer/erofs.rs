//! Layers as an EROFS index over their archive, mounted from the two files without a loop device.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keelson_oci::archive::{Entry, EntryKind};
use keelson_oci::layer::{LayerLimits, Tree, TreeBuilder, erofs};
use rustix::fs::{Mode, OFlags};

use super::{LayerBackend, TAR};
use crate::error::{Flaw, ImageError};
use crate::mounts::{detached_erofs, mount_erofs};

/// Name of the index.
const INDEX: &str = "index.erofs";
const COPY_BUFFER: usize = 256 << 10;

/// The backend.
#[derive(Debug)]
pub(crate) struct Erofs;

impl LayerBackend for Erofs {
    fn prepare(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), ImageError> {
        let path = directory.join(INDEX);
        let tar_size = tar
            .metadata()
            .map_err(ImageError::io("look at", &directory.join(TAR)))?
            .len();
        let index =
            erofs::index(tree, tar_size).map_err(|error| ImageError::Archive(error.to_string()))?;
        let write = || -> std::io::Result<()> {
            let file = File::create_new(&path)?;
            file.write_all_at(&index.metadata, 0)?;
            file.set_len(index.size)?;
            let mut buffer = Vec::new();
            for range in &index.copies {
                let mut done = 0;
                while done < range.length {
                    let length = usize::try_from(range.length - done)
                        .unwrap_or(usize::MAX)
                        .min(COPY_BUFFER);
                    buffer.resize(length, 0);
                    tar.read_exact_at(&mut buffer, range.from + done)?;
                    file.write_all_at(&buffer, range.to + done)?;
                    done += length as u64;
                }
            }
            Ok(())
        };
        write().map_err(ImageError::io("write", &path))
    }

    fn check(&self, directory: &Path, tree: &Tree, tar: &File) -> Result<(), Flaw> {
        let index = erofs::index(tree, tar.metadata()?.len())?;
        let file = File::open(directory.join(INDEX))?;
        let size = file.metadata()?.len();
        if size != index.size {
            return Err(Flaw::Differs(format!(
                "it has {size} bytes where its archive makes {}",
                index.size
            )));
        }
        let mut compare = Compare {
            file: &file,
            tar,
            expected: Vec::new(),
            found: Vec::new(),
        };
        let mut at = index.metadata.len() as u64;
        compare.part(0, at, &Source::Bytes(&index.metadata))?;
        let mut copies: Vec<_> = index.copies.iter().collect();
        copies.sort_by_key(|range| range.to);
        for range in copies {
            compare.part(at, range.to.saturating_sub(at), &Source::Zeros)?;
            compare.part(range.to, range.length, &Source::Tar(range.from))?;
            at = range.to + range.length;
        }
        compare.part(at, size.saturating_sub(at), &Source::Zeros)
    }

    fn made(&self) -> &'static str {
        INDEX
    }

    fn mount(&self, directory: &Path, target: &Path) -> Result<(), ImageError> {
        mount_erofs(&directory.join(INDEX), Some(&directory.join(TAR)), target)
    }

    fn direct(&self) -> Option<&'static str> {
        None
    }
}

/// The expected content of a part of an index.
enum Source<'a> {
    Bytes(&'a [u8]),
    /// Bytes of the archive from this offset on.
    Tar(u64),
    Zeros,
}

struct Compare<'a> {
    file: &'a File,
    tar: &'a File,
    expected: Vec<u8>,
    found: Vec<u8>,
}

impl Compare<'_> {
    fn part(&mut self, at: u64, length: u64, source: &Source<'_>) -> Result<(), Flaw> {
        let other_size = || Flaw::Differs("its archive makes another size".to_owned());
        let mut done = 0;
        while done < length {
            let size = usize::try_from(length - done)
                .unwrap_or(usize::MAX)
                .min(COPY_BUFFER);
            self.found.resize(size, 0);
            self.expected.clear();
            self.expected.resize(size, 0);
            self.file.read_exact_at(&mut self.found, at + done)?;
            match source {
                Source::Zeros => {}
                Source::Tar(from) => self.tar.read_exact_at(&mut self.expected, from + done)?,
                Source::Bytes(bytes) => {
                    let bytes = usize::try_from(done).ok().and_then(|at| bytes.get(at..));
                    let bytes = bytes.and_then(|bytes| bytes.get(..size));
                    self.expected.copy_from_slice(bytes.ok_or_else(other_size)?);
                }
            }
            if self.found != self.expected {
                let pairs = self.found.iter().zip(&self.expected);
                let same = pairs.take_while(|(found, expected)| found == expected);
                return Err(Flaw::Differs(format!(
                    "from byte {} on it is not what its archive makes",
                    at + done + same.count() as u64
                )));
            }
            done += size as u64;
        }
        Ok(())
    }
}

/// Tests with a small layer whether this kernel mounts EROFS from files on this file system (from
/// tmpfs, for example, it can't), with an extra device and blocks of 512 bytes.
pub(crate) fn probe(directory: &Path) -> Result<(), ImageError> {
    const OFFSET: u64 = 512;
    let text = b"readable through the index";
    let directory = directory.join("probe");
    fs::create_dir(&directory).map_err(ImageError::io("create directory", &directory))?;
    let path = directory.join(TAR);
    let tar = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(ImageError::io("create", &path))?;
    tar.write_all_at(text, OFFSET)
        .and_then(|()| tar.set_len(2 * OFFSET))
        .map_err(ImageError::io("write", &path))?;
    let mut tree = TreeBuilder::new(LayerLimits::default());
    tree.add(Entry {
        path: b"file".to_vec(),
        kind: EntryKind::File,
        link: Vec::new(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nsec: 0,
        major: 0,
        minor: 0,
        size: text.len() as u64,
        stored: text.len() as u64,
        data_offset: OFFSET,
        sparse: None,
        xattrs: vec![(b"trusted.probe".to_vec(), b"yes".to_vec())],
    })?;
    Erofs.prepare(&directory, &tree.finish(), &tar)?;
    // Not attached anywhere: a hostd that is killed here leaves no mount behind.
    let root = detached_erofs(&directory.join(INDEX), Some(&directory.join(TAR)))?;
    let failed = |operation| {
        let index = directory.join(INDEX);
        move |error: rustix::io::Errno| ImageError::io(operation, &index)(error.into())
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&root, "file", flags, Mode::empty())
        .map_err(failed("open a file in"))?;
    let mut value = [0; 8];
    rustix::fs::fgetxattr(&file, "trusted.probe", &mut value[..])
        .map_err(failed("read attributes in"))?;
    let mut read = Vec::new();
    File::from(file)
        .read_to_end(&mut read)
        .map_err(ImageError::io("read a file in", &directory.join(INDEX)))?;
    if read != text {
        return Err(ImageError::Damaged(
            "the kernel reads other bytes through an EROFS index than are there".to_owned(),
        ));
    }
    Ok(())
}
