//! The original manifest of an image, and the blobs that it names. A save and a push return them
//! byte for byte.

use std::path::PathBuf;

use crate::disk::Disk;
use crate::error::ImageError;
use crate::layer::{BLOB, LayerRecord, TAR};
use keelson_oci::digest::Digest;
use keelson_oci::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, DocumentKind, ManifestDocument, OCI_MANIFEST,
};

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
    /// Reads a manifest. `None` if it does not belong to this image (`id`, with a configuration of
    /// `size` bytes and `layers` layers).
    pub(crate) fn parse(bytes: Vec<u8>, id: &Digest, size: usize, layers: usize) -> Option<Self> {
        let Ok(DocumentKind::Manifest(config, descriptors)) = ManifestDocument::parse(&bytes)
        else {
            return None;
        };
        let fits = config.digest == *id
            && config.size == size as u64
            && descriptors.len() == layers
            && !descriptors.iter().any(Descriptor::is_foreign);
        // OCI makes it optional.
        let media_type = match (
            ManifestDocument::media_type_of(&bytes),
            config.media_type.as_str(),
        ) {
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

    /// Whether these layers have every blob that the manifest names.
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

/// Whether a layer has a blob with this digest: its original blob, or its plain archive.
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

/// Reads the original manifest of an image. An unreadable one counts as none: only digests are
/// lost, no data.
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
