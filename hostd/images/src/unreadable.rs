//! What start-up could not read. Nothing of it is deleted: a disk that fails for a moment must not
//! cost an image, and what is really broken is the operator's to judge. As long as it is there,
//! nothing counts as unused to which it could refer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keelson_oci::digest::Digest;

use crate::error::ImageError;
use crate::records::ImageRecord;
use crate::types::ImageId;

/// An image that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    /// Which file, and why not.
    pub reason: String,
    /// Its record, if that could be read.
    pub record: Option<ImageRecord>,
    /// Its layers, if they are known.
    pub layers: Option<Vec<Digest>>,
}

impl Unreadable {
    /// An image of which something else is missing.
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

    /// The error of whoever wants the image, if it is one of these.
    pub(crate) fn error(&self, id: &ImageId) -> Option<ImageError> {
        let found = self.images.get(id)?;
        Some(ImageError::Unreadable {
            id: *id,
            reason: found.reason.clone(),
        })
    }

    /// Layers that these images need; `None` when it may be any.
    pub(crate) fn used_layers(&self) -> Option<Vec<&Digest>> {
        let layers = self.images.values().map(|one| one.layers.as_ref());
        let layers: Option<Vec<&Vec<Digest>>> = layers.collect();
        Some(layers?.into_iter().flatten().collect())
    }

    /// Whether an image may have a name or others built upon it of which nothing is known.
    pub(crate) fn may_refer_to(&self, id: ImageId) -> bool {
        self.names.is_some()
            || self.images.values().any(|one| {
                let record = one.record.as_ref();
                record.is_none_or(|record| record.parent == Some(id))
            })
    }
}
