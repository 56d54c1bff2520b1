//! Loads image archives: those of `docker save`, and OCI layouts in a tar.
//!
//! The archive is read once, as a stream. Which files are layers is known only at the end, because
//! the manifest may come last. So every file that is a tar archive, compressed or not, is read as a
//! layer, and every small file as a document.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_oci::archive::{Entry, EntryKind, Scanner, Visitor};
use keelson_oci::compression::{Compression, DETECT_BYTES};
use keelson_oci::digest::Digest;
use tokio::sync::mpsc;

use crate::archive_path::normal_name;
use crate::contents::{Contents, LayerBlob};
use crate::disk::Staging;
use crate::error::ImageError;
use crate::layer::ingest::Ingest;
use crate::pipe::{PIECE, PipeReader};
use crate::registry::WantedPlatform;
use crate::store::{Pins, Store};
use crate::types::{ImageAction, Loaded, Progress, Step};

const BLOCK: usize = 512;
/// Largest document: the limit of image configurations.
const MAX_DOCUMENT: u64 = keelson_oci::config::MAX_CONFIG_SIZE;
/// Sum of all documents, which are held in memory.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Files in an archive.
const MAX_FILES: usize = 100_000;
/// Progress is reported each time that this many bytes were read.
const PROGRESS_STEP: u64 = 1 << 20;

/// Reads the archive and commits its images. Blocks.
pub(crate) fn load(
    store: &Arc<Store>,
    mut reader: PipeReader,
    wanted: &WantedPlatform,
    progress: &mpsc::Sender<Progress>,
) -> Result<Vec<Loaded>, ImageError> {
    let staging = store.disk.stage()?;
    let mut pins = Pins::new(store);
    let mut visitor = Reader {
        store,
        staging: &staging,
        pins: &mut pins,
        progress,
        contents: Contents::default(),
        staged: BTreeMap::new(),
        documents: 0,
        files: 0,
        state: FileState::Skip,
        entry: None,
        reported: 0,
    };
    scan(&mut reader, &mut visitor)?;
    let Reader {
        contents, staged, ..
    } = visitor;
    let mut images = contents.images(wanted)?;
    let replaced = store.settle_parents(&mut images);
    let used: BTreeMap<_, _> = staged
        .into_iter()
        .filter(|(diff_id, _)| {
            images
                .iter()
                .any(|image| image.config.rootfs.diff_ids.contains(diff_id))
        })
        .collect();
    let references: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            image
                .references
                .iter()
                .map(|name| name.familiar())
                .collect()
        })
        .collect();
    let ids = store
        .commit(&staging, &used, images, ImageAction::Load)
        .map_err(|error| {
            let names: Vec<_> = references.iter().flatten().map(String::as_str).collect();
            error.during(format!("cannot load {}", names.join(", ")))
        })?;
    Ok(ids
        .into_iter()
        .zip(references)
        .zip(replaced)
        .map(|((id, references), replaced)| Loaded {
            id,
            references,
            replaced,
        })
        .collect())
}

/// Passes the whole archive to the visitor.
fn scan(reader: &mut PipeReader, visitor: &mut Reader<'_>) -> Result<(), ImageError> {
    let interrupted = |error: std::io::Error| ImageError::Interrupted(error.to_string());
    let start = reader.fill_buf().map_err(interrupted)?;
    if start.is_empty() {
        return Err(ImageError::Archive("the image archive is empty".to_owned()));
    }
    let compression = Compression::detect(start.get(..DETECT_BYTES).unwrap_or(start))
        .map_err(|error| ImageError::Archive(format!("image archive: {error}")))?;
    let mut scanner = Scanner::new();
    if compression == Compression::Plain {
        loop {
            let piece = reader.fill_buf().map_err(interrupted)?;
            if piece.is_empty() {
                break;
            }
            scanner.push(piece, visitor).map_err(in_archive)?;
            let length = piece.len();
            reader.consume(length);
        }
    } else {
        let mut decoder = compression.decoder(reader).map_err(interrupted)?;
        let mut piece = vec![0; PIECE];
        loop {
            let length = std::io::Read::read(&mut decoder, &mut piece).map_err(|error| {
                if error.kind() == std::io::ErrorKind::ConnectionAborted {
                    ImageError::Interrupted(error.to_string())
                } else {
                    ImageError::Archive(format!(
                        "the image archive cannot be decompressed: {error}"
                    ))
                }
            })?;
            if length == 0 {
                break;
            }
            let bytes = piece.get(..length).unwrap_or_default();
            scanner.push(bytes, visitor).map_err(in_archive)?;
        }
    }
    scanner.finish(visitor).map_err(in_archive)
}

fn in_archive(error: ImageError) -> ImageError {
    match error {
        ImageError::Layer(error) => ImageError::Archive(format!(
            "the image archive cannot be read: {error}; make it again"
        )),
        other => other,
    }
}

/// What is done with the current file.
enum FileState {
    /// Its first bytes are collected to find out what it is.
    Start(Vec<u8>),
    Document(Vec<u8>),
    Layer(Box<Ingest>),
    /// It is skipped: it is not a file, or a layer that the store has, or neither a document nor an
    /// archive.
    Skip,
}

struct Reader<'a> {
    store: &'a Arc<Store>,
    staging: &'a Staging,
    pins: &'a mut Pins,
    progress: &'a mpsc::Sender<Progress>,
    contents: Contents,
    staged: BTreeMap<Digest, PathBuf>,
    documents: u64,
    files: usize,
    state: FileState,
    entry: Option<(String, Entry)>,
    reported: u64,
}

impl Reader<'_> {
    /// Finds out what the file is.
    fn start(&mut self, name: &str, size: u64, bytes: &[u8]) -> Result<FileState, ImageError> {
        let compression = match Compression::detect(bytes) {
            Ok(compression) => compression,
            Err(error) => {
                let error = ImageError::Archive(error.to_string());
                self.contents.layers.insert(name.to_owned(), Err(error));
                return Ok(FileState::Skip);
            }
        };
        if compression == Compression::Plain && !is_tar(bytes) {
            if size > MAX_DOCUMENT {
                return Ok(FileState::Skip);
            }
            self.documents += size;
            if self.documents > MAX_DOCUMENTS {
                return Err(ImageError::Archive(format!(
                    "the image archive has more than {MAX_DOCUMENTS} bytes of documents"
                )));
            }
            return Ok(FileState::Document(bytes.to_vec()));
        }
        // A blob that is named by its digest need not be read if the store has that layer.
        if let Some(digest) = blob_digest(name)
            && let Some(layer) = self.known(compression, digest, size)
        {
            self.tell(name, Step::LayerExists, size, Some(size));
            self.contents.layers.insert(name.to_owned(), Ok(layer));
            return Ok(FileState::Skip);
        }
        let directory = self.staging.path.join(format!("layer-{}", self.files));
        let mut ingest = Ingest::start(directory, compression, &self.store.layers)?
            .keeping_blob(self.store.layers.keep_compressed)?;
        ingest.write(bytes);
        Ok(FileState::Layer(Box::new(ingest)))
    }

    /// The layer of this blob, pinned, if the store has it.
    fn known(&mut self, compression: Compression, blob: Digest, size: u64) -> Option<LayerBlob> {
        let diff_id = match compression {
            Compression::Plain => blob,
            _ => self.store.layer_of_blob(&blob)?,
        };
        let record = self.pins.pin(&diff_id)?;
        let kept = record.compressed.filter(|kept| kept.digest == blob);
        let known = kept.map_or(record.size, |kept| kept.size);
        (known == size).then_some(LayerBlob {
            diff_id,
            blob,
            blob_size: size,
        })
    }

    /// Reports progress about a file of the archive.
    fn tell(&self, name: &str, step: Step, current: u64, total: Option<u64>) {
        // Progress is for people: if the channel is full, it is dropped.
        let _ = self.progress.try_send(Progress {
            id: label(name),
            step,
            current,
            total,
        });
    }

    fn finish_layer(&mut self, name: String, ingest: Ingest) -> Result<(), ImageError> {
        let result = match ingest.finish() {
            Ok(layer) => {
                let blob = LayerBlob {
                    diff_id: layer.diff_id,
                    blob: layer.blob,
                    blob_size: layer.blob_size,
                };
                let size = layer.blob_size;
                self.tell(&name, Step::Loading, size, Some(size));
                // The store's own copy, if there is one, must not be deleted meanwhile.
                let known = self.pins.pin(&layer.diff_id).is_some();
                if known || self.staged.contains_key(&layer.diff_id) {
                    let _ = std::fs::remove_dir_all(&layer.directory);
                } else {
                    self.staged.insert(layer.diff_id, layer.directory);
                }
                Ok(blob)
            }
            // It is not known yet whether the layer belongs to an image, but failures of the
            // machine affect every layer.
            Err(error @ (ImageError::Archive(_) | ImageError::Layer(_))) => Err(error),
            Err(error) => {
                return Err(error.during(format!("layer {name:?} of the image archive")));
            }
        };
        self.contents.layers.insert(name, result);
        Ok(())
    }
}

impl Visitor for Reader<'_> {
    type Error = ImageError;

    fn entry(&mut self, entry: Entry) -> Result<(), ImageError> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(ImageError::Archive(format!(
                "the image archive has more than {MAX_FILES} files"
            )));
        }
        self.reported = 0;
        let Some(name) = normal_name(&entry.name()) else {
            return Err(ImageError::Archive(format!(
                "entry {:?} of the image archive has a path that leads out of it",
                entry.name()
            )));
        };
        // A later entry replaces an earlier one.
        self.contents.links.remove(&name);
        self.state = match entry.kind {
            EntryKind::File if entry.sparse.is_none() => FileState::Start(Vec::new()),
            EntryKind::File => {
                return Err(ImageError::Archive(format!(
                    "entry {name:?} of the image archive is a sparse file; make it without"
                )));
            }
            EntryKind::Symlink | EntryKind::HardLink => {
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                let target = match (entry.kind, name.rsplit_once('/')) {
                    (EntryKind::Symlink, Some((directory, _))) if !link.starts_with('/') => {
                        format!("{directory}/{link}")
                    }
                    _ => link,
                };
                if let Some(target) = normal_name(&target) {
                    self.contents.links.insert(name.clone(), target);
                }
                FileState::Skip
            }
            _ => FileState::Skip,
        };
        self.entry = Some((name, entry));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let Some((name, size)) = self
            .entry
            .as_ref()
            .map(|(name, entry)| (name.clone(), entry.size))
        else {
            return Ok(());
        };
        self.reported += bytes.len() as u64;
        match &mut self.state {
            FileState::Skip => {}
            FileState::Document(document) => document.extend_from_slice(bytes),
            FileState::Layer(ingest) => {
                ingest.write(bytes);
                if self.reported >= PROGRESS_STEP {
                    self.reported = 0;
                    let done = ingest.taken();
                    self.tell(&name, Step::Loading, done, Some(size));
                }
            }
            FileState::Start(start) => {
                start.extend_from_slice(bytes);
                if start.len() >= BLOCK || start.len() as u64 >= size {
                    let start = std::mem::take(start);
                    self.state = self.start(&name, size, &start)?;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), ImageError> {
        let state = std::mem::replace(&mut self.state, FileState::Skip);
        let Some((name, _)) = self.entry.take() else {
            return Ok(());
        };
        match state {
            FileState::Skip => Ok(()),
            // Some programs write an empty layer as an empty file.
            FileState::Start(bytes) if bytes.is_empty() && may_be_layer(&name) => {
                let directory = self.staging.path.join(format!("layer-{}", self.files));
                let options = &self.store.layers;
                let ingest = Ingest::start(directory, Compression::Plain, options)?;
                self.finish_layer(name, ingest)
            }
            FileState::Start(bytes) | FileState::Document(bytes) => {
                self.contents.documents.insert(name, bytes);
                Ok(())
            }
            FileState::Layer(ingest) => self.finish_layer(name, *ingest),
        }
    }
}

/// Whether a file has a usual name of a layer.
fn may_be_layer(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|ending| ending == "tar")
        || blob_digest(name).is_some()
}

/// The name of a layer's file in progress messages while its digest is unknown: the hex digits of
/// the digest in the name of the file or its directory.
fn label(name: &str) -> String {
    let directory_or_file = match name.strip_suffix("/layer.tar") {
        Some(directory) => directory,
        None => name,
    };
    let last = directory_or_file.rsplit('/').next().unwrap_or_default();
    last.chars().take(12).collect()
}

/// Whether the first block can be that of a tar archive: a header with a correct checksum, or the
/// zeros that end an empty archive.
fn is_tar(start: &[u8]) -> bool {
    let Some(block) = start.get(..BLOCK) else {
        return false;
    };
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let Some(field) = block.get(148..156) else {
        return false;
    };
    let digits: String = field
        .iter()
        .map(|byte| char::from(*byte))
        .skip_while(|digit| *digit == ' ')
        .take_while(|digit| ('0'..='7').contains(digit))
        .collect();
    let sum = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum::<u32>();
    u32::from_str_radix(&digits, 8) == Ok(sum)
}

/// The digest in the path of an OCI layout's blob.
fn blob_digest(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()
}
