//! Reads files for a check.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use keelson_model::verify::VerifyLine;
use keelson_oci::archive::Scanner;
use keelson_oci::digest::{Digest, Digester};
use keelson_oci::layer::{LayerLimits, Tree, TreeBuilder};
use rustix::fs::{Advice, fadvise};
use tokio::sync::mpsc;

use crate::error::Flaw;
use crate::layer::ingest::TreeVisitor;
use crate::layer::{LayerRecord, TAR};

/// How many bytes are read at once.
const PIECE: usize = 1 << 20;
/// Progress is reported each time that this many bytes were read.
const STEP: u64 = 16 << 20;

/// Counts the bytes that are read, and reports progress.
pub(super) struct Meter<'a> {
    lines: &'a mpsc::Sender<VerifyLine>,
    bytes: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(lines: &'a mpsc::Sender<VerifyLine>) -> Self {
        Self {
            lines,
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn count(&self, length: usize) {
        let length = length as u64;
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let bytes = before + length;
        if before / STEP != bytes / STEP {
            // For people: dropped if the receiver is slow.
            let _ = self.lines.try_send(VerifyLine::Progress { bytes });
        }
    }

    /// Checks a file's size and digest. The error says what is wrong.
    pub(super) fn file(
        &self,
        path: &Path,
        expected: &Digest,
        size: Option<u64>,
    ) -> Result<(), Flaw> {
        let mut file = open(path)?;
        let found = file.metadata()?.len();
        if let Some(size) = size
            && size != found
        {
            return Err(Flaw::Differs(format!(
                "it has {found} bytes where it had {size}"
            )));
        }
        let mut digester = Digester::new();
        let mut piece = vec![0; PIECE];
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            digester.update(piece.get(..length).unwrap_or_default());
            self.count(length);
            if self.lines.is_closed() {
                // The receiver is gone; data that was not read counts as sound.
                return Ok(());
            }
        }
        match digester.finish() {
            found if found == *expected => Ok(()),
            found => Err(Flaw::Differs(format!(
                "its digest is {found} where it was {expected}"
            ))),
        }
    }
}

/// Checks the files that a layer is mounted from. Its archive is sound. The error names the file or
/// directory.
pub(super) fn mountable(
    record: &LayerRecord,
    directory: &Path,
    limits: &LayerLimits,
) -> Result<(), (&'static str, Flaw)> {
    let path = directory.join(TAR);
    let (tar, tree) = open(&path)
        .and_then(|tar| Ok((tree(&tar, limits)?, tar)))
        .map(|(tree, tar)| (tar, tree))
        .map_err(|reason| (TAR, reason))?;
    let backend = record.form.backend();
    backend
        .check(directory, &tree, &tar)
        .map_err(|reason| (backend.made(), reason))
}

/// The tree of an archive.
fn tree(mut tar: &File, limits: &LayerLimits) -> Result<Tree, Flaw> {
    let mut scanner = Scanner::new();
    let mut visitor = TreeVisitor(TreeBuilder::new(limits.clone()));
    let mut piece = vec![0; PIECE];
    loop {
        let length = match tar.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = piece.get(..length).unwrap_or_default();
        scanner.push(bytes, &mut visitor)?;
    }
    scanner.finish(&mut visitor)?;
    Ok(visitor.0.finish())
}

fn open(path: &Path) -> Result<File, Flaw> {
    let file = File::open(path)?;
    // The page cache may be correct although the disk is not. This drops pages that are clean and
    // not mapped. It is only a hint, and the files of running containers stay cached.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok(file)
}
