//! Reads a layer's blob as a stream. Decompression, writing of the archive, reading of its headers
//! and hashing happen at the same time, in two threads beside the caller's.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use keelson_blocking::TaskDied;
use keelson_oci::archive::{Entry, Scanner, Visitor};
use keelson_oci::compression::Compression;
use keelson_oci::digest::{Digest, Digester};
use keelson_oci::layer::{LayerLimits, TreeBuilder, TreeError};
use keelson_store::{Durability, Era, Rest, document};

use super::{BLOB, BlobFormat, CompressedBlob, LayerForm, LayerOptions, LayerRecord, RECORD, TAR};
use crate::error::ImageError;
use crate::pipe::{PIECE, PipeReader, PipeSender, pipe};

/// How many pieces wait between the writer and the hasher.
const HASH_DEPTH: usize = 4;
/// After this many bytes the kernel is asked to start writing them to disk, so that the final sync
/// has little to do.
const WRITE_OUT: u64 = 4 << 20;

/// A layer that was read completely and is in the staging directory.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    /// Its directory.
    pub directory: PathBuf,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the original blob.
    pub blob: Digest,
    /// Size of the original blob in bytes.
    pub blob_size: u64,
}

/// A layer that is being read.
#[derive(Debug)]
pub(crate) struct Ingest {
    pipe: Option<PipeSender>,
    worker: Option<JoinHandle<Result<(Digest, u64), ImageError>>>,
    directory: PathBuf,
    compression: Compression,
    form: LayerForm,
    era: Era,
    /// `None` for plain archives: their digest is the layer's digest.
    blob: Option<Digester>,
    blob_size: u64,
    kept: Option<Kept>,
    /// The worker sets it when it only reads and drops further bytes.
    refused: Arc<AtomicBool>,
}

impl Ingest {
    /// Starts a layer in the directory, which must not exist yet.
    pub(crate) fn start(
        directory: PathBuf,
        compression: Compression,
        options: &LayerOptions,
    ) -> Result<Self, ImageError> {
        std::fs::create_dir(&directory).map_err(ImageError::io("create directory", &directory))?;
        let (sender, reader) = pipe();
        let refused = Arc::new(AtomicBool::new(false));
        let job = Job {
            refused: Arc::clone(&refused),
            directory: directory.clone(),
            compression,
            form: options.form,
            limits: options.limits.clone(),
        };
        let worker = std::thread::Builder::new()
            .name("layer".to_owned())
            .spawn(move || job.run(reader))
            .map_err(ImageError::io("start a thread for", &directory))?;
        Ok(Self {
            pipe: Some(sender),
            worker: Some(worker),
            directory,
            compression,
            form: options.form,
            era: options.era,
            kept: None,
            blob: (compression != Compression::Plain).then(Digester::new),
            blob_size: 0,
            refused,
        })
    }

    /// Keeps the compressed blob beside the archive. A plain archive is its own blob.
    pub(crate) fn keeping_blob(mut self, keep: bool) -> Result<Self, ImageError> {
        if let Some(format) = BlobFormat::of(self.compression).filter(|_| keep) {
            let path = self.directory.join(BLOB);
            let file = File::create_new(&path).map_err(ImageError::io("create", &path))?;
            self.kept = Some(Kept {
                file,
                path,
                format,
                size: 0,
                written_out: 0,
                failure: None,
            });
        }
        Ok(self)
    }

    /// Accepts the next bytes of the blob. False if the layer was refused already; then
    /// [`Self::finish`] returns the reason.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.blob_size += bytes.len() as u64;
        if let Some(blob) = &mut self.blob {
            blob.update(bytes);
        }
        if let Some(kept) = &mut self.kept {
            kept.write(bytes);
        }
        self.pipe.as_ref().is_some_and(|pipe| {
            let mut piece = pipe.piece();
            piece.extend_from_slice(bytes);
            pipe.send(piece)
        })
    }

    /// Whether the layer was refused already. Then [`Self::finish`] returns the reason.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many bytes of the blob were accepted.
    pub(crate) fn taken(&self) -> u64 {
        self.blob_size
    }

    /// Ends the blob, and returns the layer.
    pub(crate) fn finish(mut self) -> Result<StagedLayer, ImageError> {
        if let Some(pipe) = self.pipe.take() {
            pipe.end();
        }
        let (diff_id, size) = self.join()?;
        let blob = self.blob.take().map_or(diff_id, Digester::finish);
        let compressed = match self.kept.take() {
            Some(kept) => Some(kept.finish(blob)?),
            None => None,
        };
        let record = LayerRecord {
            diff_id,
            size,
            form: self.form,
            compressed,
            rest: Rest::default(),
        };
        let path = self.directory.join(RECORD);
        document::write(&path, &record, self.era, Durability::Relaxed)?;
        Ok(StagedLayer {
            directory: self.directory.clone(),
            diff_id,
            blob,
            blob_size: self.blob_size,
        })
    }

    fn join(&mut self) -> Result<(Digest, u64), ImageError> {
        let worker = self.worker.take().ok_or(TaskDied::Cancelled)?;
        worker.join().map_err(|panic| TaskDied::of_panic(&*panic))?
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Dropping the pipe ends the thread with an error. It must not write any more when the
        // staging directory is removed.
        self.pipe = None;
        if self.worker.is_some() {
            let _ = self.join();
        }
    }
}

/// Writes the compressed blob to disk, from the same bytes that are hashed and decompressed.
#[derive(Debug)]
struct Kept {
    file: File,
    path: PathBuf,
    format: BlobFormat,
    size: u64,
    written_out: u64,
    /// The first failed write. It is returned at the end, because the layer can't be kept without
    /// the blob.
    failure: Option<std::io::Error>,
}

impl Kept {
    fn write(&mut self, bytes: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        self.failure = self.file.write_all(bytes).err();
        self.size += bytes.len() as u64;
        if self.size - self.written_out >= WRITE_OUT {
            keelson_sys::writeback::start(
                &self.file,
                self.written_out,
                self.size - self.written_out,
            );
            self.written_out = self.size;
        }
    }

    fn finish(self, digest: Digest) -> Result<CompressedBlob, ImageError> {
        match self.failure {
            Some(error) => Err(ImageError::io("write", &self.path)(error)),
            None => {
                keelson_sys::writeback::start(&self.file, self.written_out, 0);
                Ok(CompressedBlob {
                    digest,
                    size: self.size,
                    format: self.format,
                })
            }
        }
    }
}

struct Job {
    refused: Arc<AtomicBool>,
    directory: PathBuf,
    compression: Compression,
    form: LayerForm,
    limits: LayerLimits,
}

impl Job {
    fn run(self, mut reader: PipeReader) -> Result<(Digest, u64), ImageError> {
        let result = self.read(&mut reader);
        // Keep reading: a later part of the archive may explain more.
        if result.is_err() {
            self.refused.store(true, Ordering::Relaxed);
            while let Ok(piece) = reader.fill_buf() {
                let length = piece.len();
                if length == 0 {
                    break;
                }
                reader.consume(length);
            }
        }
        result
    }

    fn read(&self, reader: &mut PipeReader) -> Result<(Digest, u64), ImageError> {
        let path = self.directory.join(TAR);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(ImageError::io("create", &path))?;
        let mut decoder = self
            .compression
            .decoder(reader)
            .map_err(ImageError::io("decompress", &path))?;
        let mut scan = Scan {
            scanner: Scanner::new(),
            tree: TreeVisitor(TreeBuilder::new(self.limits.clone())),
            file: &file,
            path: &path,
            size: 0,
            limit: self.limits.bytes,
        };
        let (pieces, hashed) = sync_channel::<Vec<u8>>(HASH_DEPTH);
        let (returned, free) = sync_channel::<Vec<u8>>(HASH_DEPTH + 2);
        let diff_id = std::thread::scope(|scope| {
            let hasher = scope.spawn(move || hash(&hashed, &returned));
            let outcome = scan.run(&mut decoder, &pieces, &free);
            drop(pieces);
            let digest = hasher.join();
            let digest = digest.map_err(|panic| TaskDied::of_panic(&*panic))?;
            outcome.map(|()| digest)
        })?;
        let Scan { tree, size, .. } = scan;
        let tree = tree.0.finish();
        self.form.backend().prepare(&self.directory, &tree, &file)?;
        Ok((diff_id, size))
    }
}

fn hash(pieces: &Receiver<Vec<u8>>, returned: &SyncSender<Vec<u8>>) -> Digest {
    let mut digester = Digester::new();
    while let Ok(piece) = pieces.recv() {
        digester.update(&piece);
        let _ = returned.try_send(piece);
    }
    digester.finish()
}

struct Scan<'a> {
    scanner: Scanner,
    tree: TreeVisitor,
    file: &'a File,
    path: &'a Path,
    size: u64,
    limit: u64,
}

impl Scan<'_> {
    fn run(
        &mut self,
        decoder: &mut dyn Read,
        pieces: &SyncSender<Vec<u8>>,
        free: &Receiver<Vec<u8>>,
    ) -> Result<(), ImageError> {
        let mut written_out = 0;
        loop {
            let mut piece = free.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let length = fill(decoder, &mut piece).map_err(|error| decompression(&error))?;
            piece.truncate(length);
            if piece.is_empty() {
                break;
            }
            self.size += length as u64;
            if self.size > self.limit {
                return Err(TreeError::Limit {
                    what: "bytes",
                    limit: self.limit,
                }
                .into());
            }
            self.scanner.push(&piece, &mut self.tree)?;
            self.file
                .write_all(&piece)
                .map_err(ImageError::io("write", self.path))?;
            if self.size - written_out >= WRITE_OUT {
                keelson_sys::writeback::start(self.file, written_out, self.size - written_out);
                written_out = self.size;
            }
            if pieces.send(piece).is_err() {
                // Its panic is reported instead.
                return Err(TaskDied::Cancelled.into());
            }
        }
        keelson_sys::writeback::start(self.file, written_out, 0);
        self.scanner.finish(&mut self.tree)?;
        Ok(())
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..) {
        if rest.is_empty() {
            break;
        }
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn decompression(error: &std::io::Error) -> ImageError {
    if error.kind() == std::io::ErrorKind::ConnectionAborted {
        return ImageError::Interrupted("its sender went away".to_owned());
    }
    ImageError::Archive(format!("it cannot be decompressed: {error}"))
}

/// Makes a tree from the entries of a scanner.
#[derive(Debug)]
pub(crate) struct TreeVisitor(pub TreeBuilder);

impl Visitor for TreeVisitor {
    type Error = TreeError;

    fn entry(&mut self, entry: Entry) -> Result<(), TreeError> {
        self.0.add(entry)
    }
}
