//! The manifest that an image came with, and the blobs that it names: what a save and a push give
//! back byte for byte.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use keelson_oci::digest::Digest;
use keelson_oci::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Document, DocumentKind, OCI_MANIFEST,
};
use keelson_store::document;

use crate::disk::Disk;
use crate::error::ImageError;
use crate::layer::{BLOB, LayerRecord, RECORD, TAR};
use crate::store::{NewImage, Store};

/// A manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Original {
    /// Byte for byte.
    pub bytes: Vec<u8>,
    pub media_type: String,
    /// In the order of the configuration's diff-ids.
    pub layers: Vec<Descriptor>,
}

impl Original {
    /// Reads a manifest; `None` when it is not one of this image (`id`, with a configuration of
    /// `size` bytes and `layers` layers).
    pub(crate) fn parse(bytes: Vec<u8>, id: &Digest, size: usize, layers: usize) -> Option<Self> {
        let Ok(DocumentKind::Manifest(config, descriptors)) = Document::parse(&bytes) else {
            return None;
        };
        let fits = config.digest == *id
            && config.size == size as u64
            && descriptors.len() == layers
            && !descriptors.iter().any(Descriptor::is_foreign);
        // OCI allows to leave it out.
        let media_type = match (Document::media_type_of(&bytes), config.media_type.as_str()) {
            (Some(media_type), _) => media_type,
            (None, DOCKER_CONFIG) => DOCKER_MANIFEST.to_owned(),
            (None, _) => OCI_MANIFEST.to_owned(),
        };
        fits.then_some(Self {
            bytes,
            media_type,
            layers: descriptors,
        })
    }

    /// Whether every blob that it names is kept in these layers.
    pub(crate) fn is_kept<'a>(
        &self,
        diff_ids: &[Digest],
        record: impl Fn(&Digest) -> Option<&'a LayerRecord>,
    ) -> bool {
        self.layers.iter().zip(diff_ids).all(|(blob, diff_id)| {
            record(diff_id).is_some_and(|record| keeps(record, &blob.digest, blob.size))
        })
    }
}

/// Whether a layer has a blob with this digest: the one that it came as, or its plain archive.
fn keeps(record: &LayerRecord, digest: &Digest, size: u64) -> bool {
    let kept = record
        .compressed
        .is_some_and(|blob| blob.digest == *digest && blob.size == size);
    kept || (record.diff_id == *digest && record.size == size)
}

/// The file that holds a layer's blob.
pub(crate) fn blob_file(disk: &Disk, record: &LayerRecord, blob: &Descriptor) -> Option<PathBuf> {
    if !keeps(record, &blob.digest, blob.size) {
        return None;
    }
    let name = match record.diff_id == blob.digest {
        true => TAR,
        false => BLOB,
    };
    Some(disk.layer(&record.diff_id).join(name))
}

/// Reads the manifest that an image came with. One that cannot be read counts as none: it costs
/// digests, not data.
pub(crate) fn read(
    disk: &Disk,
    manifest: Option<Digest>,
    id: &Digest,
    size: usize,
    layers: usize,
) -> Option<Original> {
    let digest = manifest?;
    let bytes = disk
        .read_blob(&digest)
        .and_then(|bytes| match Digest::of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(ImageError::Damaged(format!("manifest {digest} is corrupt"))),
        });
    match bytes {
        Ok(bytes) => Original::parse(bytes, id, size, layers),
        Err(error) => {
            tracing::warn!(image = %id, %error, "the manifest that it came with is passed over");
            None
        }
    }
}

impl Store {
    /// Chooses between the manifest that an image comes with now and the one that it came with
    /// before: the one whose blobs are kept, and the newer one of two such.
    pub(crate) fn settle_manifest(
        &self,
        layers: &BTreeMap<Digest, PathBuf>,
        image: &mut NewImage,
    ) -> Result<(), ImageError> {
        let diff_ids = &image.config.rootfs.diff_ids;
        let id = Digest::of(&image.raw);
        let (known, mut records) = {
            let state = self.state();
            let known = state.images.get(&id).and_then(|e| e.record.manifest);
            let record = |diff_id: &Digest| Some((*diff_id, state.layers.get(diff_id)?.clone()));
            let records: HashMap<_, _> = diff_ids.iter().filter_map(record).collect();
            (known, records)
        };
        let Some(old) = read(&self.disk, known, &id, image.raw.len(), diff_ids.len()) else {
            return Ok(());
        };
        for (diff_id, folder) in layers {
            if let Some(record) = document::read(&folder.join(RECORD))? {
                records.entry(*diff_id).or_insert(record);
            }
        }
        let is_kept = |manifest: &Original| manifest.is_kept(diff_ids, |id| records.get(id));
        let new = image
            .manifest
            .clone()
            .and_then(|bytes| Original::parse(bytes, &id, image.raw.len(), diff_ids.len()));
        let keep_old = match new {
            None => true,
            Some(new) => is_kept(&old) && !is_kept(&new),
        };
        if keep_old {
            image.manifest = Some(old.bytes);
        }
        Ok(())
    }
}
