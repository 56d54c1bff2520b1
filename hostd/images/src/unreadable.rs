//! What start-up could not read. Nothing of it is deleted: a disk that fails for a moment must not
//! cost an image, and what is really broken is the operator's to judge. As long as it is there,
//! nothing counts as unused to which it could refer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keelson_model::verify::Damage;
use keelson_oci::config::{ContainerDefaults, ImageConfig};
use keelson_oci::digest::Digest;
use keelson_store::Rest;

use crate::disk::Disk;
use crate::error::ImageError;
use crate::records::ImageRecord;
use crate::state::{Entry, State};
use crate::types::{Image, ImageId};

/// Label of an image that can't be read, in lists: why.
const LABEL: &str = "io.keelson.unreadable";

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
    pub(crate) fn of(entry: &Entry, reason: String) -> Self {
        Self {
            reason,
            record: Some(entry.record.clone()),
            layers: Some(entry.diff_ids().to_vec()),
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

impl State {
    /// Whether the layers of an image are there.
    pub(crate) fn has_layers(&self, entry: &Entry) -> Result<(), String> {
        for diff_id in entry.diff_ids() {
            if !self.layers.contains_key(diff_id) {
                return Err(match self.unreadable.layers.get(diff_id) {
                    Some(reason) => format!("layer {diff_id}: {reason}"),
                    None => format!("layer {diff_id} is missing"),
                });
            }
        }
        Ok(())
    }

    /// An unreadable image for the world outside: what is known of it, and why there is no more.
    pub(crate) fn unreadable_image(&self, id: ImageId, unreadable: &Unreadable) -> Image {
        let record = ImageRecord {
            id,
            manifest: None,
            parent: unreadable.record.as_ref().and_then(|record| record.parent),
            hidden: false,
            rest: Rest::default(),
        };
        let labels = [(LABEL.to_owned(), unreadable.reason.clone())];
        let config = ImageConfig {
            config: ContainerDefaults {
                labels: Some(labels.into()),
                ..ContainerDefaults::default()
            },
            ..ImageConfig::default()
        };
        self.image(&Entry::new(record, config, Vec::new()))
    }

    /// Tries again to read images; what made them unreadable may have gone.
    pub(crate) fn read_again(&mut self, disk: &Disk) {
        for (id, unreadable) in std::mem::take(&mut self.unreadable.images) {
            let record = match unreadable.record.clone() {
                Some(record) => Some(record),
                None => keelson_store::document::read::<ImageRecord>(&disk.image(&id))
                    .ok()
                    .flatten()
                    .filter(|record| record.id == id),
            };
            let reason = unreadable.reason.clone();
            match disk.read_image(id, record, reason) {
                Ok(entry) => match self.has_layers(&entry) {
                    Ok(()) => {
                        tracing::info!(image = %id, "image can be read again");
                        self.images.insert(id, entry);
                    }
                    Err(reason) => {
                        let unreadable = Unreadable::of(&entry, reason);
                        self.unreadable.images.insert(id, unreadable);
                    }
                },
                Err(unreadable) => {
                    self.unreadable.images.insert(id, *unreadable);
                }
            }
        }
    }

    /// What a check tells of all this.
    pub(crate) fn unreadable_damage(&self, disk: &Disk) -> Vec<Damage> {
        let damage = |kind: &str, digest: String, path: &Path, reason: &str, remedy: &str| Damage {
            kind: kind.to_owned(),
            digest,
            path: path.display().to_string(),
            reason: reason.to_owned(),
            images: Vec::new(),
            remedy: remedy.to_owned(),
        };
        let mut all = Vec::new();
        for (id, one) in &self.unreadable.images {
            let remedy = "its files are kept; pull or load it again, or remove it (docker image \
                          rm -f); look at the disk's health";
            let mut found = damage(
                "record",
                id.to_string(),
                &disk.image(id),
                &one.reason,
                remedy,
            );
            let names = self.references_of(*id).into_iter();
            found.images = names.map(|(name, _)| name.familiar()).collect();
            if found.images.is_empty() {
                found.images.push(id.to_string());
            }
            all.push(found);
        }
        for (diff_id, reason) in &self.unreadable.layers {
            let remedy = "its files are kept; pull or load an image that has it";
            let path = disk.layer(diff_id);
            all.push(damage("layer", diff_id.to_string(), &path, reason, remedy));
        }
        if let Some((path, reason)) = &self.unreadable.names {
            let remedy = "until then nothing is pruned; tag images again whose names are missed";
            all.push(damage("names", String::new(), path, reason, remedy));
        }
        for path in disk.aside() {
            let reason = "it could not be read, and was put aside";
            let remedy = "remove it when nothing is missed";
            let name = path.file_name().map(|name| name.to_string_lossy());
            let kind = match name.is_some_and(|name| name.starts_with("image-")) {
                true => "record",
                false => "layer",
            };
            all.push(damage(kind, String::new(), &path, reason, remedy));
        }
        all
    }
}
