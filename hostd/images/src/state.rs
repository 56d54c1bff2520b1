//! The state of the store in memory, and pure queries on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use keelson_oci::config::{ContainerDefaults, ImageConfig};
use keelson_oci::digest::Digest;
use keelson_oci::reference::Reference;
use keelson_store::Rest;

use crate::error::ImageError;
use crate::layer::LayerRecord;
use crate::records::{ImageRecord, Repositories};
use crate::types::{Image, ImageId, ImageLayer};
use crate::unreadable::{AllUnreadable, Unreadable};

/// The label that shows, in lists, why an image can't be read.
const LABEL: &str = "io.keelson.unreadable";

/// A layer of an image can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoLayer {
    #[error("layer {0} is missing")]
    Missing(Digest),
    /// Start-up could not read it, for this reason.
    #[error("layer {0}: {1}")]
    Unreadable(Digest, String),
}

/// An image in memory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub record: ImageRecord,
    pub config: Arc<ImageConfig>,
    pub raw: Arc<[u8]>,
    pub created: i64,
}

impl Entry {
    pub(crate) fn new(record: ImageRecord, config: ImageConfig, raw: Vec<u8>) -> Self {
        let created = config
            .created
            .as_deref()
            .and_then(|text| text.parse::<Timestamp>().ok())
            // Go's zero time, the year 1, means "unknown".
            .map_or(0, |time| time.as_second().max(0));
        Self {
            record,
            config: Arc::new(config),
            raw: raw.into(),
            created,
        }
    }

    pub(crate) fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }
}

/// The state of the store. The documents on disk have the same content.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub images: BTreeMap<ImageId, Entry>,
    pub repositories: Repositories,
    pub layers: HashMap<Digest, LayerRecord>,
    /// Layers that a running load needs, but that no image record names yet.
    pub pins: HashMap<Digest, usize>,
    /// Layers, configurations and manifests that a check found damaged. The next pull or load
    /// replaces them.
    pub damaged: HashSet<Digest>,
    /// Objects that start-up could not read.
    pub unreadable: AllUnreadable,
}

impl State {
    /// The image as callers see it.
    pub(crate) fn image(&self, entry: &Entry) -> Image {
        let id = entry.record.id;
        let mut repo_tags = Vec::new();
        let mut repo_digests = Vec::new();
        let mut last_tagged = None;
        for (reference, tagged) in self.references_of(id) {
            if reference.digest().is_some() {
                repo_digests.push(reference.familiar());
            } else {
                repo_tags.push(reference.familiar());
            }
            if last_tagged.as_ref().is_none_or(|last| *last < tagged) {
                last_tagged = Some(tagged);
            }
        }
        let layers: Vec<_> = entry
            .diff_ids()
            .iter()
            .map(|diff_id| ImageLayer {
                diff_id: *diff_id,
                size: self.layers.get(diff_id).map_or(0, |layer| layer.size),
            })
            .collect();
        Image {
            id,
            parent: entry.record.parent,
            created: entry.created,
            size: layers.iter().map(|layer| layer.size).sum(),
            repo_tags,
            repo_digests,
            last_tagged,
            config: Arc::clone(&entry.config),
            raw_config: Arc::clone(&entry.raw),
            layers,
        }
    }

    /// All references of an image, with the time when each was set.
    pub(crate) fn references_of(&self, id: ImageId) -> Vec<(Reference, String)> {
        self.repositories
            .references
            .iter()
            .filter(|(_, tagged)| tagged.id == id)
            .filter_map(|(text, tagged)| Some((text.parse().ok()?, tagged.time.clone())))
            .collect()
    }

    /// Finds an image by reference, identifier or unique prefix of an identifier. Also returns the
    /// reference, if it was found by one.
    pub(crate) fn find(&self, name: &str) -> Result<(&Entry, Option<Reference>), ImageError> {
        let visible = |id: &ImageId| self.images.get(id).filter(|entry| !entry.record.hidden);
        let missing = |id: &ImageId| {
            let unreadable = self.unreadable.error(id);
            unreadable.unwrap_or_else(|| ImageError::NotFound(name.to_owned()))
        };
        if let Ok(id) = name.parse::<Digest>().or_else(|_| Digest::from_hex(name)) {
            return visible(&id)
                .map(|entry| (entry, None))
                .ok_or_else(|| missing(&id));
        }
        // Names have priority over short identifiers, as in Docker.
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            let reference = reference.clone().with_default_tag();
            // A digest is more specific than the tag beside it.
            let wanted = match reference.digest() {
                Some(digest) => reference.with_digest(digest),
                None => reference.clone(),
            };
            if let Some(tagged) = self.repositories.references.get(&wanted.to_string()) {
                if let Some(entry) = visible(&tagged.id) {
                    return Ok((entry, Some(wanted)));
                }
                if let Some(error) = self.unreadable.error(&tagged.id) {
                    return Err(error);
                }
            }
            if let Some(digest) = reference.digest()
                && let Some(entry) = visible(&digest)
                && self
                    .references_of(digest)
                    .iter()
                    .any(|(other, _)| other.name() == reference.name())
            {
                return Ok((entry, None));
            }
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if !digits.is_empty() && digits.len() < 64 && digits.bytes().all(is_hex) {
            let mut found = self
                .images
                .values()
                .filter(|entry| !entry.record.hidden)
                .filter(|entry| entry.record.id.hex().starts_with(digits));
            let unreadable = self.unreadable.images.keys();
            let mut unreadable = unreadable.filter(|id| id.hex().starts_with(digits));
            match (found.next(), found.next(), unreadable.next()) {
                (Some(entry), None, None) => return Ok((entry, None)),
                (Some(_), _, _) => return Err(ImageError::Ambiguous(digits.to_owned())),
                (None, _, Some(id)) if unreadable.next().is_none() => return Err(missing(id)),
                _ => {}
            }
        }
        match reference {
            Ok(reference) => Err(ImageError::NotFound(
                reference.with_default_tag().familiar(),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// The images that a name means for a save: all tags of a repository if no tag is named, and no
    /// name for an identifier.
    pub(crate) fn choose(
        &self,
        name: &str,
    ) -> Result<Vec<(ImageId, Option<Reference>)>, ImageError> {
        if let Ok(reference) = name.parse::<Reference>()
            && reference.tag().is_none()
            && reference.digest().is_none()
        {
            let tags: Vec<_> = self
                .repositories
                .references
                .iter()
                .filter_map(|(text, tagged)| Some((tagged.id, text.parse::<Reference>().ok()?)))
                .filter(|(_, other)| other.name() == reference.name() && other.tag().is_some())
                .map(|(id, other)| (id, Some(other)))
                .collect();
            if !tags.is_empty() {
                return Ok(tags);
            }
        }
        let (entry, reference) = self.find(name)?;
        let reference = reference.filter(|reference| reference.tag().is_some());
        Ok(vec![(entry.record.id, reference)])
    }

    /// The layer with this compressed blob.
    pub(crate) fn layer_of_blob(&self, blob: &Digest) -> Option<Digest> {
        self.layers
            .values()
            .find(|layer| layer.compressed.is_some_and(|kept| kept.digest == *blob))
            .map(|layer| layer.diff_id)
    }

    /// Whether no check found damage in the image's own documents.
    pub(crate) fn is_sound(&self, entry: &Entry) -> bool {
        let manifest = entry.record.manifest;
        !self.damaged.contains(&entry.record.id)
            && manifest.is_none_or(|manifest| !self.damaged.contains(&manifest))
    }

    /// Layers that no image and no running load needs, as far as known.
    pub(crate) fn unused_layers(&self) -> Vec<Digest> {
        let Some(unreadable) = self.unreadable.used_layers() else {
            return Vec::new();
        };
        let used: HashSet<&Digest> = self
            .images
            .values()
            .flat_map(|entry| entry.diff_ids())
            .chain(self.pins.keys())
            .chain(unreadable)
            .collect();
        self.layers
            .keys()
            .filter(|layer| !used.contains(layer))
            .copied()
            .collect()
    }

    /// Images that were built from this one.
    pub(crate) fn has_children(&self, id: ImageId) -> bool {
        self.images
            .values()
            .any(|entry| entry.record.parent == Some(id) && !entry.record.hidden)
    }

    /// Whether the layers of an image exist.
    pub(crate) fn has_layers(&self, entry: &Entry) -> Result<(), NoLayer> {
        for diff_id in entry.diff_ids() {
            if !self.layers.contains_key(diff_id) {
                let unreadable = self.unreadable.layers.get(diff_id).cloned();
                return Err(match unreadable {
                    Some(reason) => NoLayer::Unreadable(*diff_id, reason),
                    None => NoLayer::Missing(*diff_id),
                });
            }
        }
        Ok(())
    }

    /// An unreadable image as callers see it: the known facts, and why it can't be read.
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
}
