//! Objects that start-up could not read. None is deleted: a short failure of the disk must not lose
//! an image, and the operator decides what is really broken. As long as such an object exists,
//! nothing that it may refer to counts as unused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keelson_oci::digest::Digest;

use crate::error::ImageError;
use crate::records::ImageRecord;
use crate::types::ImageId;

/// An image that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    /// Which file, and why it can't be read.
    pub reason: String,
    /// Its record, if that could be read.
    pub record: Option<ImageRecord>,
    /// Its layers, if they are known.
    pub layers: Option<Vec<Digest>>,
}

impl Unreadable {
    /// An image whose record is readable, but of which another part is missing.
    pub(crate) fn of(record: &ImageRecord, layers: &[Digest], reason: String) -> Self {
        Self {
            reason,
            record: Some(record.clone()),
            layers: Some(layers.to_vec()),
        }
    }
}

/// Everything that could not be read.
#[derive(Debug, Default)]
pub(crate) struct AllUnreadable {
    pub images: BTreeMap<ImageId, Unreadable>,
    pub layers: BTreeMap<Digest, String>,
    /// The document of names: which file, and why.
    pub names: Option<(PathBuf, String)>,
}

impl AllUnreadable {
    pub(crate) fn layer(&mut self, diff_id: Digest, reason: &str) {
        tracing::error!(layer = %diff_id, reason, "layer can't be read; its files are left alone");
        self.layers.insert(diff_id, reason.to_owned());
    }

    pub(crate) fn image(&mut self, id: ImageId, unreadable: Unreadable) {
        let reason = &unreadable.reason;
        tracing::error!(image = %id, reason, "image can't be read; its files are left alone");
        self.images.insert(id, unreadable);
    }

    /// The error for a caller that asks for the image, if it is one of these.
    pub(crate) fn error(&self, id: &ImageId) -> Option<ImageError> {
        let found = self.images.get(id)?;
        Some(ImageError::Unreadable {
            id: *id,
            reason: found.reason.clone(),
        })
    }

    /// Layers that these images need. `None` if it may be any layer.
    pub(crate) fn used_layers(&self) -> Option<Vec<&Digest>> {
        let layers = self.images.values().map(|one| one.layers.as_ref());
        let layers: Option<Vec<&Vec<Digest>>> = layers.collect();
        Some(layers?.into_iter().flatten().collect())
    }

    /// Whether an image may have names, or images built from it, that are unknown because of
    /// unreadable objects.
    pub(crate) fn may_refer_to(&self, id: ImageId) -> bool {
        self.names.is_some()
            || self.images.values().any(|one| {
                let record = one.record.as_ref();
                record.is_none_or(|record| record.parent == Some(id))
            })
    }
}
