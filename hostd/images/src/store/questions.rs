//! Queries of other modules, and small changes for them. Each takes the state's lock once.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use keelson_lease::Claim;
use keelson_oci::config::ImageConfig;
use keelson_oci::digest::Digest;
use keelson_oci::reference::Reference;
use keelson_store::document;

use super::{NewImage, Store};
use crate::error::ImageError;
use crate::layer::{LayerRecord, RECORD};
use crate::lease::{Holder, ImageLease};
use crate::original::{self, Original};
use crate::state::Entry;
use crate::types::{ImageAction, ImageId};

/// The base image of a commit.
#[derive(Debug)]
pub(crate) struct Parent {
    /// The image. `None` if it was removed by force and will be deleted after its last holder.
    pub id: Option<ImageId>,
    pub config: Arc<ImageConfig>,
    /// Keeps the image meanwhile.
    pub _lease: ImageLease,
}

/// How much of a pulled image the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Everything, with the same names: nothing has to be done.
    Same,
    /// Not everything. The image's parent is kept.
    Other { parent: Option<ImageId> },
}

impl Store {
    /// An image as it is now, hidden or not.
    pub(crate) fn entry(&self, id: &ImageId) -> Option<Entry> {
        self.state().images.get(id).cloned()
    }

    /// The records of an image's layers, lowest first. `None` if one is missing.
    pub(crate) fn layer_records(&self, entry: &Entry) -> Option<Vec<LayerRecord>> {
        let state = self.state();
        let ids = entry.diff_ids().iter();
        ids.map(|diff_id| state.layers.get(diff_id).cloned())
            .collect()
    }

    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.state().layers.contains_key(diff_id)
    }

    /// The layer with this compressed blob.
    pub(crate) fn layer_of_blob(&self, blob: &Digest) -> Option<Digest> {
        self.state().layer_of_blob(blob)
    }

    /// The images that a name means for a save or a push.
    pub(crate) fn choose(
        &self,
        name: &str,
    ) -> Result<Vec<(ImageId, Option<Reference>)>, ImageError> {
        self.state().choose(name)
    }

    /// Holds the base image of a commit.
    pub(crate) fn hold_parent(&self, id: ImageId) -> Result<Parent, ImageError> {
        let state = self.state();
        let entry = state.images.get(&id);
        let entry = entry.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
        Ok(Parent {
            id: (!entry.record.hidden).then_some(id),
            config: Arc::clone(&entry.config),
            _lease: ImageLease(self.leases.take(Claim::One(id), Holder::commit())),
        })
    }

    /// How much the store has of an image that was pulled under these names. If it has everything,
    /// the pull's event is sent. `whole`: the pull brought no layer.
    pub(crate) fn before_pull(
        &self,
        id: ImageId,
        references: &[Reference],
        whole: bool,
        event_name: &str,
    ) -> Before {
        let state = self.state();
        let known = state.images.get(&id);
        let named = references.iter().all(|reference| {
            let tagged = state.repositories.references.get(&reference.to_string());
            tagged.is_some_and(|tagged| tagged.id == id)
        });
        let visible = known.is_some_and(|entry| !entry.record.hidden);
        // Damaged objects are replaced.
        let sound = known.is_some_and(|entry| state.is_sound(entry));
        if named && visible && sound && whole {
            self.emit(&state, ImageAction::Pull, id, event_name.to_owned());
            return Before::Same;
        }
        let parent = known.and_then(|entry| entry.record.parent);
        Before::Other { parent }
    }

    /// Repositories of the reference's registry that have a layer of the image, as far as known.
    /// Blobs can be mounted from there. At most `most`.
    pub(crate) fn mount_sources(
        &self,
        entry: &Entry,
        reference: &Reference,
        most: usize,
    ) -> Vec<String> {
        let state = self.state();
        let mut sources: Vec<String> = state
            .repositories
            .references
            .iter()
            .filter(|(_, tagged)| {
                // Another image that shares a layer.
                state.images.get(&tagged.id).is_some_and(|other| {
                    let known = other.diff_ids();
                    entry.diff_ids().iter().any(|layer| known.contains(layer))
                })
            })
            .filter_map(|(text, _)| text.parse::<Reference>().ok())
            .filter(|other| {
                // A name with a digest: it was in the registry once.
                other.digest().is_some()
                    && other.domain() == reference.domain()
                    && other.path() != reference.path()
            })
            .map(|other| other.path().to_owned())
            .collect();
        sources.dedup();
        sources.truncate(most);
        sources
    }

    /// Sends the events of saved images.
    pub(crate) fn tell_saved<'a>(&self, ids: impl Iterator<Item = &'a ImageId>) {
        let state = self.state();
        for id in ids {
            self.emit(&state, ImageAction::Save, *id, id.to_string());
        }
    }

    /// Keeps the parents of images that exist already, and removes parents that are not loaded.
    /// Returns for each image which of its names other images have.
    pub(crate) fn settle_parents(&self, images: &mut [NewImage]) -> Vec<Vec<(String, ImageId)>> {
        let ids: Vec<ImageId> = images.iter().map(|image| Digest::of(&image.raw)).collect();
        let state = self.state();
        images
            .iter_mut()
            .zip(&ids)
            .map(|(image, id)| {
                let known = state.images.get(id).and_then(|entry| entry.record.parent);
                let there =
                    |parent: &ImageId| ids.contains(parent) || state.images.contains_key(parent);
                image.parent = known.or(image.parent.filter(there));
                let taken = |name: &Reference| {
                    let tagged = state.repositories.references.get(&name.to_string())?;
                    (tagged.id != *id).then(|| (name.familiar(), tagged.id))
                };
                image.references.iter().filter_map(taken).collect()
            })
            .collect()
    }

    /// Chooses between an image's new original manifest and its earlier one: the one whose blobs
    /// are kept; the newer one if both are.
    pub(super) fn settle_manifest(
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
        let Some(old) = original::read(&self.disk, known, &id, image.raw.len(), diff_ids.len())
        else {
            return Ok(());
        };
        for (diff_id, directory) in layers {
            if let Some(record) = document::read(&directory.join(RECORD))? {
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
