//! Writes image archives in the format of `docker save`, which is an OCI layout and a
//! docker-archive in one. An image whose compressed layers are kept is written byte for byte, with
//! its original manifest. Other layers are written as plain archives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_oci::digest::Digest;
use keelson_oci::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_ORIGINAL, ANNOTATION_REF_NAME, Descriptor, OCI_CONFIG,
    OCI_INDEX, OCI_LAYER, OCI_MANIFEST,
};
use keelson_oci::reference::Reference;
use keelson_oci::tar_header;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::ImageError;
use crate::layer::{BlobFormat, LayerRecord};
use crate::original::{self, Original};
use crate::pipe::PIECE;
use crate::state::Entry;
use crate::store::{Pins, Store};
use crate::types::{ImageId, ManifestSummary};

/// Images to write to an archive. Their layers stay in the store until this is dropped.
#[derive(Debug)]
pub struct SavedImages {
    /// Small files, by their path in the archive.
    documents: BTreeMap<String, Vec<u8>>,
    /// The file for Docker before 1.10: repository, tag, topmost layer.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
    /// Layers: path in the archive, file, size.
    layers: Vec<(String, PathBuf, u64)>,
    /// The time of all entries is that of the youngest image, so that the same images always make
    /// the same archive.
    mtime: u64,
    pins: Pins,
}

/// An image with its names for the archive.
struct Chosen {
    names: BTreeSet<Reference>,
    raw: Arc<[u8]>,
    diff_ids: Vec<Digest>,
    created: i64,
    manifest: Option<Digest>,
    parent: Option<ImageId>,
}

impl Chosen {
    fn of(entry: &Entry) -> Self {
        Self {
            names: BTreeSet::new(),
            raw: Arc::clone(&entry.raw),
            diff_ids: entry.diff_ids().to_vec(),
            created: entry.created,
            manifest: entry.record.manifest,
            parent: entry.record.parent,
        }
    }
}

pub(crate) fn prepare(store: &Arc<Store>, names: &[String]) -> Result<SavedImages, ImageError> {
    if names.is_empty() {
        return Err(ImageError::Invalid(
            "no image is named to be saved".to_owned(),
        ));
    }
    let mut chosen: BTreeMap<Digest, Chosen> = BTreeMap::new();
    for name in names {
        for (id, reference) in store.choose(name)? {
            let entry = store
                .entry(&id)
                .ok_or_else(|| ImageError::NotFound(name.clone()))?;
            let image = chosen.entry(id).or_insert_with(|| Chosen::of(&entry));
            image.names.extend(reference);
        }
    }
    let mut saved = SavedImages {
        documents: BTreeMap::new(),
        repositories: BTreeMap::new(),
        layers: Vec::new(),
        mtime: 0,
        pins: Pins::new(store),
    };
    let mut archive = Vec::new();
    let mut index = Vec::new();
    for (id, image) in &chosen {
        saved.mtime = saved.mtime.max(u64::try_from(image.created).unwrap_or(0));
        saved.add(store, id, image, &mut archive, &mut index)?;
        let parent = image.parent.filter(|parent| chosen.contains_key(parent));
        if let (Some(parent), Some(entry)) = (parent, archive.last_mut()) {
            entry["Parent"] = json!(parent.to_string());
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": index,
    });
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    let repositories = json!(saved.repositories);
    let mut put = |name: &str, value: Value| {
        saved
            .documents
            .insert(name.to_owned(), value.to_string().into_bytes());
    };
    put("index.json", index);
    put("manifest.json", Value::Array(archive));
    put("oci-layout", layout);
    if repositories != json!({}) {
        put("repositories", repositories);
    }
    store.tell_saved(chosen.keys());
    Ok(saved)
}

impl SavedImages {
    fn add(
        &mut self,
        store: &Store,
        id: &Digest,
        image: &Chosen,
        archive: &mut Vec<Value>,
        index: &mut Vec<Value>,
    ) -> Result<(), ImageError> {
        let mut records = Vec::new();
        for diff_id in &image.diff_ids {
            let record = self.pins.pin(diff_id);
            records.push(record.ok_or_else(|| ImageError::NotFound(id.to_string()))?);
        }
        let chosen = choose_manifest(store, id, image, &records);
        let blobs = &chosen.blobs;
        let mut paths = Vec::new();
        for (blob, record) in blobs.iter().zip(&records) {
            let path = blob_path(&blob.digest);
            if !self.layers.iter().any(|(known, ..)| *known == path) {
                let file = original::blob_file(&store.disk, record, blob).ok_or_else(|| {
                    ImageError::Damaged(format!("layer {} has no blob", record.diff_id))
                })?;
                self.layers.push((path.clone(), file, blob.size));
            }
            paths.push(path);
        }
        let mut annotations = BTreeMap::new();
        // Other manifests show it by their compressed layers.
        let plain = blobs
            .iter()
            .zip(&image.diff_ids)
            .all(|(blob, id)| blob.digest == *id);
        if chosen.original && plain {
            annotations.insert(ANNOTATION_ORIGINAL, "true".to_owned());
        }
        let (manifest, media_type) = (chosen.bytes, chosen.media_type);
        let digest = Digest::of(&manifest);
        let mut describe = |annotations: &BTreeMap<&str, String>| {
            let mut entry = json!({
                "mediaType": media_type,
                "digest": digest,
                "size": manifest.len(),
            });
            if !annotations.is_empty() {
                entry["annotations"] = json!(annotations);
            }
            index.push(entry);
        };
        if image.names.is_empty() {
            describe(&annotations);
        }
        for name in &image.names {
            annotations.insert(ANNOTATION_IMAGE_NAME, name.to_string());
            let tag = name.tag().unwrap_or_default();
            annotations.insert(ANNOTATION_REF_NAME, tag.to_owned());
            describe(&annotations);
            if let Some(top) = blobs.last() {
                let tags = self.repositories.entry(name.familiar_name()).or_default();
                tags.insert(tag.to_owned(), top.digest.hex());
            }
        }
        let tags: Vec<String> = image.names.iter().map(Reference::familiar).collect();
        archive.push(json!({
            "Config": blob_path(id),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": paths,
        }));
        self.documents.insert(blob_path(id), image.raw.to_vec());
        self.documents.insert(blob_path(&digest), manifest);
        Ok(())
    }

    /// Writes the archive.
    pub async fn write_to<W: AsyncWrite + Unpin + Send>(
        &self,
        mut to: W,
    ) -> Result<(), ImageError> {
        for name in ["blobs/", "blobs/sha256/"] {
            let header = tar_header::directory(name, self.mtime).map_err(too_long)?;
            write(&mut to, &header).await?;
        }
        for (path, file, size) in &self.layers {
            let header = tar_header::file(path, *size, self.mtime).map_err(too_long)?;
            write(&mut to, &header).await?;
            copy(file, *size, &mut to).await?;
            write(&mut to, &vec![0; tar_header::padding(*size)]).await?;
        }
        for (path, bytes) in &self.documents {
            let size = bytes.len() as u64;
            let header = tar_header::file(path, size, self.mtime).map_err(too_long)?;
            write(&mut to, &header).await?;
            write(&mut to, bytes).await?;
            write(&mut to, &vec![0; tar_header::padding(size)]).await?;
        }
        write(&mut to, &tar_header::END).await?;
        to.flush().await.map_err(gone)
    }
}

/// The manifest that a save or a push uses for an image.
struct ChosenManifest {
    bytes: Vec<u8>,
    media_type: String,
    /// One for each layer.
    blobs: Vec<Descriptor>,
    /// Whether it is the image's original manifest.
    original: bool,
}

/// The original manifest if all its blobs are kept, otherwise a new one.
fn choose_manifest(
    store: &Store,
    id: &Digest,
    image: &Chosen,
    records: &[LayerRecord],
) -> ChosenManifest {
    let (size, count) = (image.raw.len(), image.diff_ids.len());
    let original =
        original::read(&store.disk, image.manifest, id, size, count).filter(|original| {
            original.is_kept(&image.diff_ids, |diff_id| {
                records.iter().find(|record| record.diff_id == *diff_id)
            })
        });
    match original {
        Some(Original {
            bytes,
            media_type,
            layers,
        }) => ChosenManifest {
            bytes,
            media_type,
            blobs: layers,
            original: true,
        },
        None => {
            let blobs: Vec<_> = records.iter().map(best_blob).collect();
            ChosenManifest {
                bytes: manifest(id, size, &blobs),
                media_type: OCI_MANIFEST.to_owned(),
                blobs,
                original: false,
            }
        }
    }
}

/// Digest and sizes of the manifest that a save or a push would use now.
pub(crate) fn describe(store: &Arc<Store>, id: &ImageId) -> Result<ManifestSummary, ImageError> {
    let missing = || ImageError::NotFound(id.to_string());
    let entry = store.entry(id).ok_or_else(missing)?;
    let records = store.layer_records(&entry).ok_or_else(missing)?;
    let image = Chosen::of(&entry);
    let chosen = choose_manifest(store, id, &image, &records);
    let blobs: u64 = chosen.blobs.iter().map(|blob| blob.size).sum();
    let size = chosen.bytes.len() as u64;
    Ok(ManifestSummary {
        media_type: chosen.media_type,
        digest: Digest::of(&chosen.bytes),
        size,
        content: size + image.raw.len() as u64 + blobs,
        unpacked: records.iter().map(|record| record.size).sum(),
    })
}

/// The form of a layer in an archive: compressed if that blob is kept.
fn best_blob(record: &LayerRecord) -> Descriptor {
    let (suffix, digest, size) = match record.compressed {
        Some(blob) => {
            let suffix = match blob.format {
                BlobFormat::Gzip => "+gzip",
                BlobFormat::Zstd => "+zstd",
            };
            (suffix, blob.digest, blob.size)
        }
        None => ("", record.diff_id, record.size),
    };
    Descriptor {
        media_type: format!("{OCI_LAYER}{suffix}"),
        digest,
        size,
        platform: None,
        annotations: None,
        artifact_type: None,
    }
}

/// A new manifest for an image that had none, or whose blobs are not kept.
fn manifest(id: &Digest, size: usize, blobs: &[Descriptor]) -> Vec<u8> {
    let layers: Vec<Value> = blobs
        .iter()
        .map(|blob| json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": id, "size": size},
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}

async fn copy<W: AsyncWrite + Unpin>(path: &Path, size: u64, to: &mut W) -> Result<(), ImageError> {
    let failed = || ImageError::io("read", path);
    let mut file = tokio::fs::File::open(path).await.map_err(failed())?;
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        let piece = piece.get_mut(..length).unwrap_or_default();
        file.read_exact(piece).await.map_err(failed())?;
        write(to, piece).await?;
        left -= length as u64;
    }
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> Result<(), ImageError> {
    to.write_all(bytes).await.map_err(gone)
}

fn gone(error: std::io::Error) -> ImageError {
    ImageError::Interrupted(format!("its reader went away: {error}"))
}

fn too_long(error: tar_header::NameTooLong) -> ImageError {
    ImageError::Damaged(error.to_string())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
