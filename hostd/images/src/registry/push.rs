//! Pushes an image. If the compressed blob of a layer is kept, that blob is sent, so that a pulled
//! image keeps its manifest byte for byte. If the registry has the blob already, or can mount it
//! from another repository, nothing is sent. Other layers are compressed, always in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use keelson_blocking::{TaskDied, blocking};
use keelson_oci::digest::Digest;
use keelson_oci::manifest::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Descriptor, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST,
};
use keelson_oci::reference::Reference;
use keelson_registry::{
    BlobSource, Client, Credentials, RegistryError, Repository, RepositoryAccess,
};
use keelson_store::{Document, Durability, Rest, document};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{PARALLEL, Pushed, push_failed, tell, tell_bytes};
use crate::disk::Staging;
use crate::error::ImageError;
use crate::gzip;
use crate::layer::{BlobFormat, LayerRecord, TAR};
use crate::original::{self, Original};
use crate::store::{Pins, Store};
use crate::types::{ImageAction, ImageId, Progress, Step};

/// How many repositories of the same registry are tried for mounting blobs.
const MAX_SOURCES: usize = 3;
/// The file beside a layer that describes its compressed form, as it was pushed.
const COMPRESSED: &str = "compressed.json";

const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// `compressed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompressedRecord {
    /// Digest of the gzip file.
    pub blob: Digest,
    /// Its bytes.
    pub size: u64,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Document for CompressedRecord {
    const VERSION: u32 = 1;
}

/// Pushes one tag, or all tags of a repository if no tag is named. If `progress` is closed, the
/// push is cancelled.
pub(crate) async fn push(
    store: &Arc<Store>,
    client: &Client,
    name: &str,
    credentials: Option<Credentials>,
    progress: &mpsc::Sender<Progress>,
) -> Result<Vec<Pushed>, ImageError> {
    // Docker reports this before it looks for the image.
    let repository = name.parse::<Reference>().map(|named| named.name());
    if let Ok(repository) = repository {
        let told = Step::PushingTo(repository.to_string());
        tell(progress, "", told).await;
    }
    let mut pushed = Vec::new();
    for image in choose(store, name)? {
        let push = Push {
            store: Arc::clone(store),
            image,
            progress: progress.clone(),
        };
        let done = tokio::select! {
            done = push.run(client, credentials.clone()) => done?,
            () = progress.closed() => {
                return Err(ImageError::Interrupted("the client went away".to_owned()));
            }
        };
        let told = Step::TagPushed {
            tag: done.tag.clone(),
            digest: done.digest,
            size: done.size,
        };
        tell(progress, "", told).await;
        pushed.push(done);
    }
    Ok(pushed)
}

/// An image to push under one name.
struct Chosen {
    id: ImageId,
    reference: Reference,
    raw: Arc<[u8]>,
    layers: Vec<LayerRecord>,
    manifest: Option<Digest>,
    /// Other repositories of the same registry that may have its layers.
    sources: Vec<String>,
    /// Held so that the layers stay.
    pins: Pins,
}

fn choose(store: &Arc<Store>, name: &str) -> Result<Vec<Chosen>, ImageError> {
    // Docker's words, which differ for a missing tag and a missing repository.
    let unknown = || {
        let reference = name.parse::<Reference>().ok();
        let (name, repository) = match &reference {
            Some(reference) => (reference.familiar(), reference.familiar_name()),
            None => (name.to_owned(), name.to_owned()),
        };
        let message = match store.choose(&repository).is_ok() {
            true => format!("tag does not exist: {name}"),
            false => format!("An image does not exist locally with the tag: {repository}"),
        };
        ImageError::Registry {
            kind: keelson_model::error::ErrorKind::NotFound,
            message,
        }
    };
    let found = store.choose(name);
    let names = match found {
        Err(ImageError::NotFound(_)) => return Err(unknown()),
        other => other?,
    };
    let mut chosen = Vec::new();
    for (id, reference) in names {
        let reference = reference.ok_or_else(|| {
            ImageError::Invalid(format!(
                "{name} is not a tag: images are pushed by name and tag"
            ))
        })?;
        let entry = store.entry(&id).ok_or_else(unknown)?;
        let mut image = Chosen {
            id,
            sources: store.mount_sources(&entry, &reference, MAX_SOURCES),
            reference,
            raw: Arc::clone(&entry.raw),
            layers: Vec::new(),
            manifest: entry.record.manifest,
            pins: Pins::new(store),
        };
        for diff_id in entry.diff_ids() {
            image
                .layers
                .push(image.pins.pin(diff_id).ok_or_else(unknown)?);
        }
        chosen.push(image);
    }
    Ok(chosen)
}

struct Push {
    store: Arc<Store>,
    image: Chosen,
    progress: mpsc::Sender<Progress>,
}

impl Push {
    async fn run(
        &self,
        client: &Client,
        credentials: Option<Credentials>,
    ) -> Result<Pushed, ImageError> {
        let reference = &self.image.reference;
        let failed = |error| push_failed(reference, error);
        let repository = Repository::open(
            client,
            reference.domain(),
            reference.path(),
            RepositoryAccess::Push,
            credentials,
        )
        .await
        .map_err(failed)?
        .with_sources(self.image.sources.clone());
        let repository = Arc::new(repository);
        let original = self.original().await?;
        let layers = self.layers(&repository, original.as_ref()).await?;
        let id = &self.image.id;
        if !repository.has_blob(id).await.map_err(failed)? {
            let source = BlobSource::Bytes(self.image.raw.to_vec().into());
            repository
                .put_blob(id, self.image.raw.len() as u64, &source, &|_| {})
                .await
                .map_err(failed)?;
        }
        let (bytes, media_type) = match original {
            Some(original) if same(&original.layers, &layers) => {
                (original.bytes, original.media_type)
            }
            _ => manifest(id, self.image.raw.len() as u64, layers),
        };
        let tag = reference.tag().unwrap_or("latest").to_owned();
        let digest = repository
            .put_manifest(&tag, &media_type, &bytes)
            .await
            .map_err(failed)?;
        self.remember(digest).await?;
        Ok(Pushed {
            tag,
            digest,
            size: bytes.len() as u64,
        })
    }

    /// The manifest in the store, if it belongs to this image.
    async fn original(&self) -> Result<Option<Original>, ImageError> {
        let store = Arc::clone(&self.store);
        let (manifest, id) = (self.image.manifest, self.image.id);
        let (size, layers) = (self.image.raw.len(), self.image.layers.len());
        let read = move || original::read(&store.disk, manifest, &id, size, layers);
        Ok(blocking(read).await?)
    }

    /// Makes sure that the registry has the layers, several at a time. Returns their blobs, lowest
    /// first.
    async fn layers(
        &self,
        repository: &Arc<Repository>,
        original: Option<&Original>,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let gate = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        let mut seen = BTreeSet::new();
        for (at, record) in self.image.layers.iter().enumerate() {
            if !seen.insert(record.diff_id) {
                continue;
            }
            let id = record.diff_id.short();
            tell(&self.progress, &id, Step::Preparing).await;
            if at >= PARALLEL {
                tell(&self.progress, &id, Step::Waiting).await;
            }
            let push = LayerPush {
                store: Arc::clone(&self.store),
                repository: Arc::clone(repository),
                reference: self.image.reference.clone(),
                sources: self.image.sources.clone(),
                record: record.clone(),
                original: original.and_then(|original| original.layers.get(at).cloned()),
                progress: self.progress.clone(),
            };
            let gate = Arc::clone(&gate);
            tasks.spawn(async move {
                // The gate is never closed.
                let _permit = gate.acquire_owned().await;
                Ok::<_, ImageError>((push.record.diff_id, push.run().await?))
            });
        }
        let mut done = BTreeMap::new();
        // An error cancels the others.
        while let Some(result) = tasks.join_next().await {
            let (diff_id, blob) = result.map_err(TaskDied::from)??;
            done.insert(diff_id, blob);
        }
        let all = self.image.layers.iter().map(|record| {
            let blob = done.get(&record.diff_id).cloned();
            blob.ok_or_else(|| ImageError::Damaged(format!("layer {} vanished", record.diff_id)))
        });
        all.collect()
    }

    /// The image has this name now, too.
    async fn remember(&self, digest: Digest) -> Result<(), ImageError> {
        let (store, id) = (Arc::clone(&self.store), self.image.id);
        let name = self.image.reference.with_digest(digest);
        let familiar = self.image.reference.familiar();
        blocking(move || store.name(id, &name, ImageAction::Push, familiar)).await?
    }
}

/// A layer to push.
struct LayerPush {
    store: Arc<Store>,
    repository: Arc<Repository>,
    reference: Reference,
    sources: Vec<String>,
    record: LayerRecord,
    /// Its descriptor in the image's original manifest.
    original: Option<Descriptor>,
    progress: mpsc::Sender<Progress>,
}

impl LayerPush {
    async fn run(&self) -> Result<Descriptor, ImageError> {
        let id = self.record.diff_id.short();
        let kept = self.record.compressed.map(|blob| match blob.format {
            BlobFormat::Gzip => gzipped(blob.digest, blob.size),
            BlobFormat::Zstd => described(OCI_ZSTD, blob.digest, blob.size),
        });
        let recorded = self.recorded().await;
        let mut known: Vec<Descriptor> = Vec::new();
        for blob in self
            .original
            .clone()
            .into_iter()
            .chain(kept)
            .chain(recorded.map(|record| gzipped(record.blob, record.size)))
        {
            if !known.iter().any(|other| other.digest == blob.digest) {
                known.push(blob);
            }
        }
        for blob in &known {
            if self.has(&blob.digest).await? {
                tell(&self.progress, &id, Step::LayerExists).await;
                return Ok(blob.clone());
            }
        }
        for blob in &known {
            for source in &self.sources {
                let mounted = self.repository.mount_blob(&blob.digest, source).await;
                if mounted.map_err(|error| self.failed(error))? {
                    tell(&self.progress, &id, Step::MountedFrom(source.to_string())).await;
                    return Ok(blob.clone());
                }
            }
        }
        for blob in &known {
            if let Some(path) = original::blob_file(&self.store.disk, &self.record, blob) {
                self.send(blob, path).await?;
                return Ok(blob.clone());
            }
        }
        let (_staging, path, record) = self.compress().await?;
        let blob = gzipped(record.blob, record.size);
        if self.has(&blob.digest).await? {
            tell(&self.progress, &id, Step::LayerExists).await;
        } else {
            self.send(&blob, path).await?;
        }
        // The bytes are the same, so the descriptor is kept, too.
        let same = known.into_iter().find(|other| other.digest == blob.digest);
        Ok(same.unwrap_or(blob))
    }

    fn failed(&self, error: RegistryError) -> ImageError {
        push_failed(&self.reference, error)
    }

    async fn has(&self, digest: &Digest) -> Result<bool, ImageError> {
        let found = self.repository.has_blob(digest).await;
        found.map_err(|error| self.failed(error))
    }

    async fn send(&self, blob: &Descriptor, path: PathBuf) -> Result<(), ImageError> {
        let id = self.record.diff_id.short();
        let progress = |sent| tell_bytes(&self.progress, &id, Step::Pushing, sent, blob.size);
        let source = BlobSource::File(path);
        self.repository
            .put_blob(&blob.digest, blob.size, &source, &progress)
            .await
            .map_err(|error| self.failed(error))?;
        tell(&self.progress, &id, Step::Pushed).await;
        Ok(())
    }

    async fn recorded(&self) -> Option<CompressedRecord> {
        let path = self.store.disk.layer(&self.record.diff_id).join(COMPRESSED);
        let read = move || document::read(&path).ok().flatten();
        blocking(read).await.ok().flatten()
    }

    /// Compresses the layer to a file, which is deleted with the staging directory.
    async fn compress(&self) -> Result<(Staging, PathBuf, CompressedRecord), ImageError> {
        let store = Arc::clone(&self.store);
        let diff_id = self.record.diff_id;
        let job = move || -> Result<_, ImageError> {
            let staging = store.disk.stage()?;
            let directory = store.disk.layer(&diff_id);
            let path = staging.path.join("layer.gz");
            let (blob, size) = gzip::compress(&directory.join(TAR), &path)?;
            let record = CompressedRecord {
                blob,
                size,
                rest: Rest::default(),
            };
            let note = directory.join(COMPRESSED);
            let found = document::read::<CompressedRecord>(&note);
            let too_new = found.is_err_and(|error| error.is_too_new());
            let era = store.layers.era;
            if !too_new
                && let Err(error) = document::write(&note, &record, era, Durability::Relaxed)
            {
                // The only effect is that the next push takes longer.
                tracing::warn!(path = %note.display(), %error, "digest is not remembered");
            }
            Ok((staging, path, record))
        };
        blocking(job).await?
    }
}

fn gzipped(digest: Digest, size: u64) -> Descriptor {
    described(DOCKER_GZIP, digest, size)
}

fn described(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: None,
        artifact_type: None,
    }
}

fn same(one: &[Descriptor], other: &[Descriptor]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.digest == b.digest)
}

/// A new manifest, in Docker's format if all layers have Docker's media types.
fn manifest(id: &Digest, size: u64, layers: Vec<Descriptor>) -> (Vec<u8>, String) {
    let docker = layers
        .iter()
        .all(|layer| matches!(layer.media_type.as_str(), DOCKER_GZIP | OCI_GZIP));
    let (media_type, config) = match docker {
        true => (DOCKER_MANIFEST, DOCKER_CONFIG),
        false => (OCI_MANIFEST, OCI_CONFIG),
    };
    let layers: Vec<_> = layers
        .into_iter()
        .map(|layer| {
            let media_type = match (layer.media_type.as_str(), docker) {
                (_, true) => DOCKER_GZIP.to_owned(),
                (DOCKER_LAYER, false) => OCI_LAYER.to_owned(),
                (other, false) => other.replace(
                    &format!("{DOCKER_LAYER}."),
                    "application/vnd.oci.image.layer.v1.tar+",
                ),
            };
            json!({"mediaType": media_type, "size": layer.size, "digest": layer.digest})
        })
        .collect();
    let bytes = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config, "size": size, "digest": id},
        "layers": layers,
    })
    .to_string()
    .into_bytes();
    (bytes, media_type.to_owned())
}

#[cfg(test)]
mod tests {
    use keelson_oci::manifest::{DocumentKind, ManifestDocument};

    use super::*;

    #[test]
    fn manifests_are_of_one_kind() {
        let id = Digest::of(b"config");
        let layer = gzipped(Digest::of(b"layer"), 7);
        let (bytes, media_type) = manifest(&id, 6, vec![layer.clone()]);
        assert_eq!(media_type, DOCKER_MANIFEST);
        assert!(matches!(
            ManifestDocument::parse(&bytes),
            Ok(DocumentKind::Manifest(config, layers))
                if config.digest == id && layers == [layer.clone()]
        ));
        let zstd = Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
            ..layer.clone()
        };
        let (bytes, media_type) = manifest(&id, 6, vec![layer, zstd]);
        assert_eq!(media_type, OCI_MANIFEST);
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("docker"), "{text}");
    }
}
