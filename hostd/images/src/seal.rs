//! Seals layers with fs-verity, if the file system has it (decision 0010).
//!
//! A layer's files are sealed some time after they arrived, by a thread of low priority. It reads
//! the archive again, checks it against its digest, computes its fs-verity digest at the same time,
//! makes the kernel protect the files, and stores the digests (`seal.json`). From then on the
//! kernel checks every page that it reads from them, and a mount checks that they are the files
//! that were sealed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use keelson_oci::digest::{Digest, Digester};
use keelson_oci::verity::VerityDigester;
use keelson_store::{Document, Durability, Era, Rest, StoreError, document};
use keelson_sys::verity;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Staging};
use crate::error::ImageError;
use crate::layer::{LayerForm, LayerRecord, TAR};

/// Name of the document.
pub(crate) const SEAL: &str = "seal.json";
/// A new layer is not touched for this long: its pull, and the container that needs it, use the
/// machine.
const DELAY: Duration = Duration::from_secs(10);
const PIECE: usize = 256 << 10;

/// `seal.json`: the fs-verity digests of the files that the layer is mounted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal {
    /// The digest of the archive.
    pub archive: Digest,
    /// The digest of the file that [`crate::layer::LayerBackend::made`] names.
    pub index: Digest,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Document for Seal {
    const VERSION: u32 = 1;
}

/// The sealing thread. Dropping this waits for its end, which comes soon.
#[derive(Debug)]
pub(crate) struct Sealer {
    queue: Option<Sender<(PathBuf, LayerRecord)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts the thread. `None` if the file system has no fs-verity.
    pub(crate) fn start(disk: &Disk) -> Option<Self> {
        let (queue, layers) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let era = disk.era;
        let started = disk
            .stage()
            .and_then(|staging| try_out(&staging))
            .and_then(|()| {
                std::thread::Builder::new()
                    .name("image-sealer".to_owned())
                    .spawn(move || run(&layers, era, &stopped))
                    .map_err(ImageError::io(
                        "start a thread of",
                        Path::new("image-sealer"),
                    ))
            });
        match started {
            Ok(thread) => Some(Self {
                queue: Some(queue),
                stop,
                thread: Some(thread),
            }),
            Err(error) => {
                tracing::info!(%error, "layers are not sealed with fs-verity");
                None
            }
        }
    }

    /// Queues a layer for sealing, unless it is sealed.
    pub(crate) fn take(&self, directory: PathBuf, record: &LayerRecord) {
        // Unpacked layers have too many files.
        if record.form == LayerForm::Erofs
            && let Some(queue) = &self.queue
        {
            // The thread is gone only after a panic. Then layers stay unsealed.
            let _ = queue.send((directory, record.clone()));
        }
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Seals a small file.
fn try_out(staging: &Staging) -> Result<(), ImageError> {
    let path = staging.path.join("sealed");
    std::fs::write(&path, "sealed").map_err(ImageError::io("write", &path))?;
    let file = File::open(&path).map_err(ImageError::io("open", &path))?;
    let enabled = verity::enable(&file).map_err(io::Error::from);
    enabled.map_err(ImageError::io("protect with fs-verity", &path))
}

fn run(layers: &Receiver<(PathBuf, LayerRecord)>, era: Era, stop: &AtomicBool) {
    // For this thread only. It also works without it.
    let _ = rustix::process::setpriority_process(None, 19);
    while let Ok((directory, record)) = layers.recv() {
        let mut waiting = vec![(directory, record)];
        // Until no layer has arrived for a while.
        loop {
            match layers.recv_timeout(DELAY) {
                Ok(layer) => waiting.push(layer),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        for (directory, record) in waiting {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // A layer that was removed meanwhile is not a failure.
            if let Err(error) = seal(&directory, &record, era, stop)
                && directory.exists()
            {
                tracing::warn!(layer = %record.diff_id, %error, "the layer is not sealed");
            }
        }
    }
}

/// Why a layer is not sealed. It can be used anyway.
#[derive(Debug, thiserror::Error)]
enum SealError {
    /// The seal could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or protected.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// `open`, `read`, `protect with fs-verity`, `measure`.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The archive has changed since it was stored.
    #[error("its archive is damaged: its digest is {0}; hostctl image verify says more")]
    Damaged(Digest),
    /// The kernel computes another digest than this program.
    #[error("fs-verity says {found:?} where {expected} is expected")]
    Measured {
        /// The digest of this program.
        expected: Digest,
        /// The digest of the kernel.
        found: Option<Digest>,
    },
    /// The store is being closed.
    #[error("hostd is ending")]
    Ending,
}

impl SealError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

fn seal(
    directory: &Path,
    record: &LayerRecord,
    era: Era,
    stop: &AtomicBool,
) -> Result<(), SealError> {
    let path = directory.join(SEAL);
    match document::read::<Seal>(&path) {
        Ok(Some(_)) => return Ok(()),
        Err(error) if !error.is_damage() => return Err(error.into()),
        _ => {}
    }
    let open = |name: &str| {
        let path = directory.join(name);
        let file = File::open(&path).map_err(SealError::io("open", &path))?;
        Ok::<_, SealError>((path, file))
    };
    let (archive, index) = (open(TAR)?, open(record.form.backend().made())?);
    let (content, archive_digest) = digests(&archive, stop)?;
    if content != record.diff_id {
        return Err(SealError::Damaged(content));
    }
    let (_, index_digest) = digests(&index, stop)?;
    for ((path, file), expected) in [(&archive, archive_digest), (&index, index_digest)] {
        match verity::enable(file).map_err(io::Error::from) {
            // The same thread did it before a crash.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(SealError::io("protect with fs-verity", path)(error)),
            Ok(()) => {}
        }
        let measured = verity::measure(file).map_err(io::Error::from);
        let measured = measured.map_err(SealError::io("measure", path))?;
        let found = measured.map(Digest::from_bytes);
        if found != Some(expected) {
            return Err(SealError::Measured { expected, found });
        }
    }
    let seal = Seal {
        archive: archive_digest,
        index: index_digest,
        rest: Rest::default(),
    };
    // If a power cut loses it, it is made again.
    Ok(document::write(&path, &seal, era, Durability::Relaxed)?)
}

/// SHA-256 and fs-verity digest of a file.
fn digests(
    (path, file): &(PathBuf, File),
    stop: &AtomicBool,
) -> Result<(Digest, Digest), SealError> {
    let mut file = file;
    let (mut content, mut tree) = (Digester::new(), VerityDigester::new());
    let mut piece = vec![0; PIECE];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(SealError::Ending);
        }
        let length = file.read(&mut piece).map_err(SealError::io("read", path))?;
        let bytes = piece.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok((content.finish(), tree.finish()));
        }
        content.update(bytes);
        tree.update(bytes);
    }
}

/// Checks before a mount that the files of a sealed layer are those that were sealed. Files that
/// are not protected (on another file system, after a restore) are no error, because nothing is
/// known about them.
pub(crate) fn check(directory: &Path, record: &LayerRecord) -> Result<(), ImageError> {
    let seal = match document::read::<Seal>(&directory.join(SEAL)) {
        Ok(Some(seal)) => seal,
        // It counts as missing: the kernel checks the pages of the files anyway.
        Err(error) if error.is_too_new() => {
            tracing::warn!(layer = %record.diff_id, %error, "a seal is passed over");
            return Ok(());
        }
        Err(error) if !error.is_damage() => return Err(error.into()),
        // The sealing thread makes it again.
        _ => return Ok(()),
    };
    let made = record.form.backend().made();
    for (name, expected) in [(TAR, seal.archive), (made, seal.index)] {
        let path = directory.join(name);
        let measured = File::open(&path)
            .and_then(|file| Ok(verity::measure(&file)?))
            .map_err(ImageError::io("measure", &path))?;
        compare(record, name, expected, measured.map(Digest::from_bytes))?;
    }
    Ok(())
}

fn compare(
    record: &LayerRecord,
    name: &str,
    expected: Digest,
    measured: Option<Digest>,
) -> Result<(), ImageError> {
    match measured {
        Some(measured) if measured != expected => Err(ImageError::Damaged(format!(
            "layer {}: fs-verity measures {measured} for {name}, which was sealed as {expected}: \
             it is another file. Remove the images that have this layer and pull or load them \
             again",
            record.diff_id
        ))),
        Some(_) => Ok(()),
        None => {
            tracing::warn!(layer = %record.diff_id, name, "was sealed, and is no longer protected");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> LayerRecord {
        LayerRecord {
            diff_id: Digest::of(b"layer"),
            size: 5,
            form: LayerForm::Erofs,
            compressed: None,
            rest: Rest::default(),
        }
    }

    #[test]
    fn another_file_than_the_sealed_one_is_refused() {
        let (sealed, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let compare = |measured| compare(&record(), TAR, sealed, measured);
        assert!(compare(Some(sealed)).is_ok());
        assert!(compare(None).is_ok());
        let error = compare(Some(other)).unwrap_err().to_string();
        for part in [
            &record().diff_id.to_string(),
            "layer.tar",
            &sealed.to_string(),
            &other.to_string(),
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_layer_is_read_completely_before_it_is_sealed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(TAR), "another").unwrap();
        std::fs::write(directory.path().join("index.erofs"), "index").unwrap();
        let reason = seal(
            directory.path(),
            &record(),
            Era::Blessed,
            &AtomicBool::new(false),
        )
        .unwrap_err();
        assert!(matches!(reason, SealError::Damaged(_)), "{reason}");
        assert!(!directory.path().join(SEAL).exists());
        let reason = seal(
            directory.path(),
            &record(),
            Era::Blessed,
            &AtomicBool::new(true),
        )
        .unwrap_err();
        assert!(matches!(reason, SealError::Ending), "{reason}");
    }

    /// Runs only if the file system of the temporary directory has fs-verity. On the machine's
    /// image it has.
    #[test]
    fn sealed_files_are_measured_as_computed() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let staging = Staging {
            path: directory.path().join("staging"),
        };
        std::fs::create_dir(&staging.path).unwrap();
        if let Err(error) = try_out(&staging) {
            keelson_testing::skip("fs-verity", error);
            return;
        }
        let data = vec![7; 1 << 20];
        let layer = directory.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join(TAR), &data).unwrap();
        std::fs::write(layer.join("index.erofs"), "index").unwrap();
        let record = LayerRecord {
            diff_id: Digest::of(&data),
            size: data.len() as u64,
            ..record()
        };
        seal(&layer, &record, Era::Blessed, &AtomicBool::new(false)).unwrap();
        check(&layer, &record).unwrap();
        std::fs::remove_file(layer.join(TAR)).unwrap();
        std::fs::write(layer.join(TAR), vec![8; 1 << 20]).unwrap();
        let file = File::open(layer.join(TAR)).unwrap();
        verity::enable(&file).unwrap();
        assert!(check(&layer, &record).is_err());
    }
}
