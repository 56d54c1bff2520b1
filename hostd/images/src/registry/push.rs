//! Pushing an image. The compressed form of a layer is not kept; what is known is its digest, from
//! the manifest that the image came with or from an earlier push. Where the registry has that blob
//! already, or can take it from another repository, nothing is sent, and a pulled image keeps its
//! manifest byte for byte. What has to be sent is compressed anew, always in the same way.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::write::GzEncoder;
use keelson_oci::digest::{Digest, Digester};
use keelson_oci::manifest::{Descriptor, Document, DocumentKind};
use keelson_oci::reference::Reference;
use keelson_registry::{Access, BlobSource, Client, Credentials, Repository};
use keelson_store::{Document as Versioned, Durability, document};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Pushed, joined, push_failed, tell, tell_bytes};
use crate::disk::Staging;
use crate::error::ImageError;
use crate::layer::TAR;
use crate::pipe::PIECE;
use crate::store::{Pins, Store};
use crate::types::{ImageAction, ImageId, Progress};

/// Repositories of the same registry from which blobs are mounted.
const MAX_SOURCES: usize = 3;
/// Beside a layer: its compressed form as it was pushed.
const COMPRESSED: &str = "compressed.json";
/// Level of gzip: the usual one. Another one would change digests.
const LEVEL: u32 = 6;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// `compressed.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct CompressedRecord {
    /// Digest of the gzip file.
    blob: Digest,
    /// Its bytes.
    size: u64,
}

impl Versioned for CompressedRecord {
    const VERSION: u32 = 1;
}

/// Pushes one tag, or all tags of a repository that is named without one. When `progress` is
/// closed the push is given up.
pub(crate) async fn push(
    store: &Arc<Store>,
    client: &Client,
    name: &str,
    credentials: Option<Credentials>,
    progress: &mpsc::Sender<Progress>,
) -> Result<Vec<Pushed>, ImageError> {
    let chosen = choose(store, name)?;
    let mut pushed = Vec::new();
    let repository = chosen
        .first()
        .map(|image| image.reference.name())
        .unwrap_or_default();
    tell(
        progress,
        "",
        format!("The push refers to repository [{repository}]"),
    )
    .await;
    for image in chosen {
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
        tell(
            progress,
            "",
            format!("{}: digest: {} size: {}", done.tag, done.digest, done.size),
        )
        .await;
        pushed.push(done);
    }
    Ok(pushed)
}

/// An image to be pushed under one name.
struct Chosen {
    id: ImageId,
    reference: Reference,
    raw: Arc<[u8]>,
    diff_ids: Vec<Digest>,
    manifest: Option<Digest>,
    /// Other repositories of the same registry that may have its layers.
    sources: Vec<String>,
    /// Held so that the layers stay.
    _pins: Pins,
}

fn choose(store: &Arc<Store>, name: &str) -> Result<Vec<Chosen>, ImageError> {
    let unknown = || ImageError::Registry {
        kind: keelson_model::error::ErrorKind::NotFound,
        message: format!("An image does not exist locally with the tag: {name}"),
    };
    let names = {
        let state = store.state();
        state.choose(name).map_err(|error| match error {
            ImageError::NotFound(_) => unknown(),
            other => other,
        })?
    };
    let mut chosen = Vec::new();
    for (id, reference) in names {
        let reference = reference.ok_or_else(|| {
            ImageError::Invalid(format!(
                "{name} is not a tag: images are pushed by name and tag"
            ))
        })?;
        let mut image = {
            let state = store.state();
            let entry = state.images.get(&id).ok_or_else(unknown)?;
            let mut sources: Vec<String> = state
                .repositories
                .references
                .iter()
                .filter(|(_, tagged)| {
                    // An image that shares a layer.
                    state.images.get(&tagged.id).is_some_and(|other| {
                        let known = other.diff_ids();
                        entry.diff_ids().iter().any(|layer| known.contains(layer))
                    })
                })
                .filter_map(|(text, _)| text.parse::<Reference>().ok())
                .filter(|other| {
                    // With a digest: it was in the registry once.
                    other.digest().is_some()
                        && other.domain() == reference.domain()
                        && other.path() != reference.path()
                })
                .map(|other| other.path().to_owned())
                .collect();
            sources.dedup();
            sources.truncate(MAX_SOURCES);
            Chosen {
                id,
                reference,
                raw: Arc::clone(&entry.raw),
                diff_ids: entry.diff_ids().to_vec(),
                manifest: entry.record.manifest,
                sources,
                _pins: Pins::new(store),
            }
        };
        for diff_id in image.diff_ids.clone() {
            image._pins.pin(&diff_id).ok_or_else(unknown)?;
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

/// The manifest that an image came with.
struct Original {
    bytes: Vec<u8>,
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
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
            Access::Push,
            credentials,
        )
        .await
        .map_err(failed)?
        .with_sources(self.image.sources.clone());
        let original = self.original().await?;
        let mut unique = BTreeSet::new();
        for diff_id in &self.image.diff_ids {
            if unique.insert(diff_id) {
                tell(&self.progress, &diff_id.short(), "Preparing").await;
            }
        }
        let mut layers: Vec<Descriptor> = Vec::new();
        for (at, diff_id) in self.image.diff_ids.iter().enumerate() {
            let before = self
                .image
                .diff_ids
                .iter()
                .position(|other| other == diff_id);
            let layer = match before.and_then(|before| layers.get(before)) {
                Some(same) => same.clone(),
                None => {
                    let known = original.as_ref().and_then(|o| o.layers.get(at));
                    self.layer(&repository, diff_id, known).await?
                }
            };
            layers.push(layer);
        }
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

    /// The manifest in the store, when it is one of this image.
    async fn original(&self) -> Result<Option<Original>, ImageError> {
        let Some(digest) = self.image.manifest else {
            return Ok(None);
        };
        let store = Arc::clone(&self.store);
        let read = move || store.disk.read_blob(&digest);
        let bytes = joined(tokio::task::spawn_blocking(read).await)??;
        let Ok(DocumentKind::Manifest(config, layers)) = Document::parse(&bytes) else {
            return Ok(None);
        };
        if config.digest != self.image.id || layers.len() != self.image.diff_ids.len() {
            return Ok(None);
        }
        let media_type = match config.media_type.as_str() {
            DOCKER_CONFIG => DOCKER_MANIFEST,
            _ => OCI_MANIFEST,
        };
        Ok(Some(Original {
            media_type: media_type.to_owned(),
            bytes,
            config,
            layers,
        })
        .filter(|original| original.config.size == self.image.raw.len() as u64))
    }

    /// Sees to it that the registry has a layer, and tells which blob it is there.
    async fn layer(
        &self,
        repository: &Repository,
        diff_id: &Digest,
        original: Option<&Descriptor>,
    ) -> Result<Descriptor, ImageError> {
        let failed = |error| push_failed(&self.image.reference, error);
        let id = diff_id.short();
        let recorded = self.recorded(diff_id).await;
        let known: Vec<Descriptor> = original
            .cloned()
            .into_iter()
            .chain(recorded.map(|record| gzip(record.blob, record.size)))
            .collect();
        for blob in &known {
            if repository.has_blob(&blob.digest).await.map_err(failed)? {
                tell(&self.progress, &id, "Layer already exists").await;
                return Ok(blob.clone());
            }
        }
        for blob in &known {
            for source in &self.image.sources {
                if repository
                    .mount_blob(&blob.digest, source)
                    .await
                    .map_err(failed)?
                {
                    tell(&self.progress, &id, format!("Mounted from {source}")).await;
                    return Ok(blob.clone());
                }
            }
        }
        let (_staging, path, record) = self.compress(diff_id).await?;
        if repository.has_blob(&record.blob).await.map_err(failed)? {
            tell(&self.progress, &id, "Layer already exists").await;
        } else {
            let progress = |sent| {
                tell_bytes(&self.progress, &id, "Pushing", sent, record.size);
            };
            repository
                .put_blob(
                    &record.blob,
                    record.size,
                    &BlobSource::File(path),
                    &progress,
                )
                .await
                .map_err(failed)?;
            tell(&self.progress, &id, "Pushed").await;
        }
        Ok(match original {
            // The same bytes: then the description is kept, too.
            Some(original) if original.digest == record.blob => original.clone(),
            _ => gzip(record.blob, record.size),
        })
    }

    async fn recorded(&self, diff_id: &Digest) -> Option<CompressedRecord> {
        let path = self.store.disk.layer(diff_id).join(COMPRESSED);
        tokio::task::spawn_blocking(move || document::read(&path).ok().flatten())
            .await
            .ok()
            .flatten()
    }

    /// Compresses a layer to a file, which goes with the staging folder.
    async fn compress(
        &self,
        diff_id: &Digest,
    ) -> Result<(Staging, PathBuf, CompressedRecord), ImageError> {
        let store = Arc::clone(&self.store);
        let diff_id = *diff_id;
        let job = move || -> Result<_, ImageError> {
            let staging = store.disk.stage()?;
            let folder = store.disk.layer(&diff_id);
            let path = staging.path.join("layer.gz");
            let record = compress(&folder.join(TAR), &path)?;
            let note = folder.join(COMPRESSED);
            if let Err(error) = document::write(&note, &record, Durability::Relaxed) {
                // Only the next push takes longer.
                tracing::warn!(path = %note.display(), %error, "digest is not remembered");
            }
            Ok((staging, path, record))
        };
        joined(tokio::task::spawn_blocking(job).await)?
    }

    /// The image has this name now, too.
    async fn remember(&self, digest: Digest) -> Result<(), ImageError> {
        let (store, id) = (Arc::clone(&self.store), self.image.id);
        let name = self.image.reference.with_digest(digest);
        let familiar = self.image.reference.familiar();
        joined(
            tokio::task::spawn_blocking(move || store.name(id, &name, ImageAction::Push, familiar))
                .await,
        )?
    }
}

/// Compresses a file. Blocks.
fn compress(from: &Path, to: &Path) -> Result<CompressedRecord, ImageError> {
    let mut source = File::open(from).map_err(ImageError::io("open", from))?;
    let target = File::create(to).map_err(ImageError::io("create", to))?;
    let sink = Hashing {
        to: BufWriter::new(target),
        digester: Digester::new(),
        size: 0,
    };
    let mut encoder = GzEncoder::new(sink, flate2::Compression::new(LEVEL));
    let mut piece = vec![0; PIECE];
    loop {
        let length = source
            .read(&mut piece)
            .map_err(ImageError::io("read", from))?;
        if length == 0 {
            break;
        }
        encoder
            .write_all(piece.get(..length).unwrap_or_default())
            .map_err(ImageError::io("write", to))?;
    }
    let mut sink = encoder.finish().map_err(ImageError::io("write", to))?;
    sink.flush().map_err(ImageError::io("write", to))?;
    Ok(CompressedRecord {
        blob: sink.digester.finish(),
        size: sink.size,
    })
}

/// Hashes what it writes.
struct Hashing {
    to: BufWriter<File>,
    digester: Digester,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.digester
            .update(bytes.get(..length).unwrap_or_default());
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn gzip(digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: DOCKER_GZIP.to_owned(),
        digest,
        size,
        platform: None,
        annotations: None,
    }
}

fn same(one: &[Descriptor], other: &[Descriptor]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.digest == b.digest)
}

/// A new manifest: Docker's, as long as all layers are of its kind.
fn manifest(id: &Digest, size: u64, layers: Vec<Descriptor>) -> (Vec<u8>, String) {
    let docker = layers
        .iter()
        .all(|layer| matches!(layer.media_type.as_str(), DOCKER_GZIP | OCI_GZIP));
    let (media_type, config, gzip) = if docker {
        (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_GZIP)
    } else {
        (OCI_MANIFEST, OCI_CONFIG, OCI_GZIP)
    };
    let layers: Vec<_> = layers
        .into_iter()
        .map(|layer| {
            let media_type = match layer.media_type.as_str() {
                DOCKER_GZIP | OCI_GZIP => gzip.to_owned(),
                other => other.replace(
                    "application/vnd.docker.image.rootfs.diff.tar.",
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
    use super::*;

    #[test]
    fn compression_always_gives_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (tar, one, two) = (
            folder.path().join("tar"),
            folder.path().join("1"),
            folder.path().join("2"),
        );
        std::fs::write(&tar, b"some text, some text, some text".repeat(10_000)).unwrap();
        let first = compress(&tar, &one).unwrap();
        assert_eq!(compress(&tar, &two).unwrap(), first);
        let bytes = std::fs::read(&one).unwrap();
        assert_eq!(first.blob, Digest::of(&bytes));
        assert_eq!(first.size, bytes.len() as u64);
        // Neither time nor name.
        assert_eq!(bytes.get(3..8), Some(&[0; 5][..]));
    }

    #[test]
    fn manifests_are_of_one_kind() {
        let id = Digest::of(b"config");
        let layer = gzip(Digest::of(b"layer"), 7);
        let (bytes, media_type) = manifest(&id, 6, vec![layer.clone()]);
        assert_eq!(media_type, DOCKER_MANIFEST);
        assert!(matches!(
            Document::parse(&bytes),
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
