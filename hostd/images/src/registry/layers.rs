//! Downloads layers from a registry into the staging directory. The blob is downloaded, hashed,
//! decompressed, hashed again, written and indexed at the same time.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use keelson_oci::compression::{Compression, DETECT_BYTES};
use keelson_oci::digest::Digest;
use keelson_oci::manifest::Descriptor;
use keelson_oci::reference::Reference;
use keelson_registry::{RegistryError, Repository};
use tokio::sync::{mpsc, watch};

use super::pull_failed;
use crate::disk::Staging;
use crate::error::ImageError;
use crate::layer::ingest::{Ingest, StagedLayer};
use crate::pipe::PIECE;
use crate::store::Store;
use crate::threads;

/// How many pieces wait between the connection and the thread that reads them.
const DEPTH: usize = 4;
/// Progress is reported each time that this many bytes arrived.
const STEP: u64 = 512 << 10;

/// The progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// This many bytes of the blob have arrived.
    Downloading(u64),
    /// All bytes have arrived; they are still processed.
    Downloaded,
    /// The layer is in its directory, and was checked.
    Done,
    /// It can't be downloaded from that registry.
    Failed,
}

/// A layer to pull.
#[derive(Debug, Clone)]
pub(super) struct LayerPull {
    pub store: Arc<Store>,
    pub staging: Arc<Staging>,
    pub repository: Arc<Repository>,
    pub reference: Reference,
    pub descriptor: Descriptor,
    /// The layer's digest in the configuration.
    pub diff_id: Digest,
    /// The directory that it is written to.
    pub directory: PathBuf,
}

impl LayerPull {
    /// Downloads the layer into its directory.
    pub(super) async fn run(self, phase: &watch::Sender<Phase>) -> Result<(), ImageError> {
        let (sender, pieces) = mpsc::channel::<Option<Bytes>>(DEPTH);
        let job = {
            let (store, staging) = (Arc::clone(&self.store), Arc::clone(&self.staging));
            let directory = self.directory.clone();
            threads::begin("layer", move || {
                let result = take_in(&store, directory, pieces);
                // Held until nothing writes to the directory any more.
                drop(staging);
                result
            })
        };
        let downloaded = self.download(phase, &sender).await;
        drop(sender);
        let taken = job.end().await;
        downloaded?;
        let layer = taken.map_err(|error| match error {
            ImageError::Archive(_) | ImageError::Layer(_) | ImageError::Interrupted(_) => self
                .wrong(&format!(
                    "{error}; if trying again does not help, ask the image's maker"
                )),
            // The machine's own fault, not the registry's.
            error => error.during(format!(
                "cannot pull {}: layer {}",
                self.reference.familiar(),
                self.descriptor.digest
            )),
        })?;
        self.check(&layer)
    }

    async fn download(
        &self,
        phase: &watch::Sender<Phase>,
        sender: &mpsc::Sender<Option<Bytes>>,
    ) -> Result<(), ImageError> {
        let wanted = &self.descriptor;
        let mut reader = self.repository.blob(wanted.digest, wanted.size);
        let (mut at, mut told) = (0, 0);
        while let Some(piece) = reader.next().await.map_err(|error| self.missed(error))? {
            at += piece.len() as u64;
            if sender.send(Some(piece)).await.is_err() {
                // The layer was refused; its job has the reason.
                return Ok(());
            }
            if at - told >= STEP {
                told = at;
                phase.send_replace(Phase::Downloading(at));
            }
        }
        phase.send_replace(Phase::Downloaded);
        // The receiver is gone only if the layer was refused.
        let _ = sender.send(None).await;
        Ok(())
    }

    /// Makes the error of a download.
    fn missed(&self, error: RegistryError) -> ImageError {
        match error {
            RegistryError::NotFound { host, .. } if self.descriptor.is_foreign() => {
                self.wrong(&format!(
                    "it is a foreign layer, and registry {host} does not have it; from other \
                     places none is fetched. Copy the image with its foreign layers to a registry"
                ))
            }
            error => pull_failed(&self.reference, error),
        }
    }

    fn check(&self, layer: &StagedLayer) -> Result<(), ImageError> {
        let wanted = &self.descriptor;
        if layer.blob != wanted.digest {
            return Err(self.wrong(&format!(
                "it is corrupt: its digest is {}; try again, or ask the registry's operator",
                layer.blob
            )));
        }
        if layer.diff_id != self.diff_id {
            return Err(self.wrong(&format!(
                "uncompressed it is {}, where the image's configuration says {}",
                layer.diff_id, self.diff_id
            )));
        }
        Ok(())
    }

    fn wrong(&self, reason: &str) -> ImageError {
        ImageError::Archive(format!(
            "cannot pull {}: layer {}: {reason}",
            self.reference.familiar(),
            self.descriptor.digest
        ))
    }
}

/// Reads the pieces of a blob. Blocks.
fn take_in(
    store: &Store,
    directory: PathBuf,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
) -> Result<StagedLayer, ImageError> {
    let mut ingest: Option<Ingest> = None;
    let mut gathered = Vec::with_capacity(PIECE);
    loop {
        let piece = pieces
            .blocking_recv()
            .ok_or_else(|| ImageError::Interrupted("the download was given up".to_owned()))?;
        let ended = piece.is_none();
        if let Some(piece) = piece {
            gathered.extend_from_slice(&piece);
            // Pieces are large, because every piece costs a switch of threads.
            if gathered.len() < PIECE / 2 {
                continue;
            }
        }
        let ingest_now = match &mut ingest {
            Some(ingest) => ingest,
            None => {
                let start = gathered.get(..DETECT_BYTES).unwrap_or(&gathered);
                let compression = Compression::detect(start)
                    .map_err(|error| ImageError::Archive(error.to_string()))?;
                let started = Ingest::start(directory.clone(), compression, &store.layers)?
                    .keeping_blob(store.layers.keep_compressed)?;
                ingest.insert(started)
            }
        };
        ingest_now.write(&gathered);
        gathered.clear();
        if ingest_now.is_refused() || ended {
            break;
        }
    }
    match ingest {
        Some(ingest) => ingest.finish(),
        None => Err(ImageError::Archive("it is empty".to_owned())),
    }
}
