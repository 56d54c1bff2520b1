//! Removes names and images, by the rules and with the error texts of Docker's engine.

use std::sync::{Arc, Weak};
use std::thread::Builder;

use keelson_oci::reference::Reference;
use keelson_store::Rest;

use crate::error::ImageError;
use crate::layer::LayerRecord;
use crate::lease::Holder;
use crate::records::ImageRecord;
use crate::state::State;
use crate::store::Store;
use crate::types::{DiskUsage, Image, ImageAction, ImageId, PrunedImages, Removed};

/// Options of a removal.
#[derive(Debug, Clone, Copy)]
struct Removal {
    /// Remove it even if stopped containers hold it or it has several names.
    force: bool,
    /// Keep its parents.
    no_prune: bool,
    /// It is no error if the image has to stay.
    quiet: bool,
}

/// The removed references, and those that stay.
struct Untagging {
    gone: Vec<Reference>,
    left: Vec<Reference>,
}

impl Store {
    pub(crate) fn remove(
        &self,
        name: &str,
        force: bool,
        no_prune: bool,
    ) -> Result<Vec<Removed>, ImageError> {
        let mut state = self.state();
        let found = state.find(name);
        if let Err(ImageError::Unreadable { id, .. }) = found {
            return self.remove_unreadable(&mut state, id, force);
        }
        let (entry, reference) = found?;
        let id = entry.record.id;
        let references: Vec<Reference> = state
            .references_of(id)
            .into_iter()
            .map(|(reference, _)| reference)
            .collect();
        let mut removed = Vec::new();
        let mut by_reference = false;
        if let Some(reference) = reference {
            if !force
                && is_single(&references)
                && let Some(holder) = self.holder(id)
            {
                return Err(ImageError::Conflict(format!(
                    "conflict: unable to remove repository reference {name:?} (must force) - \
                     {holder} is using its referenced image {}",
                    id.short()
                )));
            }
            let untagging = untag(reference, references);
            self.untag_all(&mut state, id, &untagging.gone, &mut removed)?;
            if !untagging.left.is_empty() {
                return Ok(removed);
            }
            by_reference = true;
        } else if is_single(&references) {
            self.check(&state, id, force, false)?;
            self.untag_all(&mut state, id, &references, &mut removed)?;
        }
        let removal = Removal {
            force,
            no_prune,
            quiet: by_reference,
        };
        self.delete(&mut state, id, removal, &mut removed)?;
        Ok(removed)
    }

    /// Removes an unreadable image, because a client names it. Its layers stay if they are unknown.
    fn remove_unreadable(
        &self,
        state: &mut State,
        id: ImageId,
        force: bool,
    ) -> Result<Vec<Removed>, ImageError> {
        let holders = self.leases.holders(&id).into_iter();
        let mut holders = holders.filter(|holder| !force || holder.is_running());
        if let Some(holder) = holders.next() {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to delete {} (must be forced) - image can't be read, and may be \
                 used by {holder}",
                id.short()
            )));
        }
        let references = state.references_of(id).into_iter();
        let references: Vec<Reference> = references.map(|(reference, _)| reference).collect();
        let mut removed = Vec::new();
        self.untag_all(state, id, &references, &mut removed)?;
        let record = state.unreadable.images.get(&id);
        let record = record.and_then(|one| one.record.clone());
        self.disk.remove_image(&record.unwrap_or(ImageRecord {
            id,
            manifest: None,
            parent: None,
            hidden: false,
            rest: Rest::default(),
        }))?;
        state.unreadable.images.remove(&id);
        self.emit(state, ImageAction::Delete, id, id.to_string());
        removed.push(Removed::Deleted(id.to_string()));
        for (layer, _) in self.remove_unused_layers(state)? {
            removed.push(Removed::Deleted(layer.to_string()));
        }
        Ok(removed)
    }

    fn untag_all(
        &self,
        state: &mut State,
        id: ImageId,
        references: &[Reference],
        removed: &mut Vec<Removed>,
    ) -> Result<(), ImageError> {
        if references.is_empty() {
            return Ok(());
        }
        let mut repositories = state.repositories.clone();
        for reference in references {
            repositories.references.remove(&reference.to_string());
        }
        let disk = &self.disk;
        disk.reserve
            .with(|| disk.write_repositories(&repositories))?;
        state.repositories = repositories;
        for reference in references {
            self.emit(state, ImageAction::Untag, id, id.to_string());
            removed.push(Removed::Untagged(reference.familiar()));
        }
        Ok(())
    }

    /// Deletes an image, and then its parents that nothing else needs.
    fn delete(
        &self,
        state: &mut State,
        id: ImageId,
        mut how: Removal,
        removed: &mut Vec<Removed>,
    ) -> Result<(), ImageError> {
        let mut next = Some(id);
        while let Some(id) = next {
            if let Err(conflict) = self.check(state, id, how.force, true) {
                let dangling = state.references_of(id).is_empty() && !state.has_children(id);
                // The client asked to remove a name; the image may stay for others.
                return if how.quiet && (!dangling || self.leases.is_held(&id)) {
                    Ok(())
                } else {
                    Err(conflict)
                };
            }
            let references: Vec<Reference> = state
                .references_of(id)
                .into_iter()
                .map(|(reference, _)| reference)
                .collect();
            self.untag_all(state, id, &references, removed)?;
            let parent = self.delete_one(state, id, removed)?;
            next = parent.filter(|parent| {
                !how.no_prune
                    && !state.unreadable.may_refer_to(*parent)
                    && state.images.contains_key(parent)
                    && state.references_of(*parent).is_empty()
            });
            how.force = false;
            how.quiet = true;
        }
        Ok(())
    }

    fn delete_one(
        &self,
        state: &mut State,
        id: ImageId,
        removed: &mut Vec<Removed>,
    ) -> Result<Option<ImageId>, ImageError> {
        let Some(entry) = state.images.get(&id) else {
            return Ok(None);
        };
        let mut record = entry.record.clone();
        let parent = record.parent;
        self.emit(state, ImageAction::Delete, id, id.to_string());
        removed.push(Removed::Deleted(id.to_string()));
        if self.leases.is_held(&id) {
            // Stopped containers can still be started; only the name was removed.
            record.hidden = true;
            let disk = &self.disk;
            disk.reserve.with(|| disk.write_image(&record))?;
            if let Some(entry) = state.images.get_mut(&id) {
                entry.record = record;
            }
            self.leave(|| self.leases.is_held(&id));
            return Ok(parent);
        }
        self.disk.remove_image(&record)?;
        state.images.remove(&id);
        for (layer, _) in self.remove_unused_layers(state)? {
            removed.push(Removed::Deleted(layer.to_string()));
        }
        Ok(parent)
    }

    /// Removes images that nobody holds and that `fits` accepts: those without a name, or
    /// with `all` every one.
    pub(crate) fn prune(
        &self,
        all: bool,
        fits: &dyn Fn(&Image) -> bool,
    ) -> Result<PrunedImages, ImageError> {
        let mut state = self.state();
        let before = disk_bytes(&state);
        let candidates: Vec<ImageId> = state
            .images
            .values()
            .filter(|entry| !entry.record.hidden && fits(&state.image(entry)))
            .map(|entry| entry.record.id)
            .filter(|id| !self.leases.is_held(id))
            // An image that others were built from loses its names, and is deleted with the last of
            // those.
            .filter(|id| match state.references_of(*id).is_empty() {
                true => !state.has_children(*id),
                false => all,
            })
            // Nothing counts as unused while an unreadable object may refer to it.
            .filter(|id| !state.unreadable.may_refer_to(*id))
            .collect();
        let mut removed = Vec::new();
        for id in candidates {
            let references: Vec<_> = state
                .references_of(id)
                .into_iter()
                .map(|(reference, _)| reference)
                .collect();
            self.untag_all(&mut state, id, &references, &mut removed)?;
            let removal = Removal {
                force: true,
                no_prune: false,
                quiet: true,
            };
            self.delete(&mut state, id, removal, &mut removed)?;
        }
        let reclaimed = before.saturating_sub(disk_bytes(&state));
        self.emit_prune(reclaimed);
        Ok(PrunedImages { removed, reclaimed })
    }

    /// From now on, deletes images that are kept for holders when these are gone. Holders of an
    /// earlier process take their leases again before the first lease is dropped.
    pub(crate) fn release_by_itself(self: &Arc<Self>) {
        let store = Arc::downgrade(self);
        self.doomed.set_look(move || {
            let store = Weak::clone(&store);
            let work = move || {
                // Otherwise the next start deletes all of it.
                if let Some(store) = store.upgrade()
                    && let Err(error) = store.release_unused()
                {
                    tracing::warn!(%error, "removed images not deleted");
                }
            };
            // On its own thread: code that drops a lease must not wait for the disk.
            let named = Builder::new().name("image-release".to_owned());
            if let Err(error) = named.spawn(work) {
                tracing::warn!(%error, "removed images not deleted");
            }
        });
        let state = self.state();
        let hidden = state.images.values().any(|entry| entry.record.hidden);
        drop(state);
        if hidden {
            self.doomed.mark();
        }
    }

    /// Deletes images that forced removals left for holders, if these are gone.
    fn release_unused(&self) -> Result<(), ImageError> {
        let mut state = self.state();
        let (held, free): (Vec<_>, Vec<_>) = state
            .images
            .values()
            .filter(|entry| entry.record.hidden)
            .map(|entry| entry.record.clone())
            .partition(|record| self.leases.is_held(&record.id));
        for record in free {
            self.disk.remove_image(&record)?;
            state.images.remove(&record.id);
        }
        self.remove_unused_layers(&mut state)?;
        if !held.is_empty() {
            self.leave(|| held.iter().all(|record| self.leases.is_held(&record.id)));
        }
        Ok(())
    }

    /// The holders of an image, and those that may hold it.
    fn holder(&self, id: ImageId) -> Option<Arc<Holder>> {
        self.leases.holders(&id).into_iter().next()
    }

    /// The reason why an image can't be deleted. `several`: whether several names count as a
    /// reason, too.
    fn check(
        &self,
        state: &State,
        id: ImageId,
        force: bool,
        several: bool,
    ) -> Result<(), ImageError> {
        let conflict = |forced: &str, reason: String| {
            Err(ImageError::Conflict(format!(
                "conflict: unable to delete {} ({forced}) - {reason}",
                id.short()
            )))
        };
        if state.has_children(id) {
            return conflict(
                "cannot be forced",
                "image has dependent child images".to_owned(),
            );
        }
        let known = self.leases.known_holders(&id);
        if let Some(holder) = known.iter().find(|holder| holder.is_running()) {
            return conflict(
                "cannot be forced",
                format!("image is being used by running {holder}"),
            );
        }
        if force {
            return Ok(());
        }
        if several && !state.references_of(id).is_empty() {
            return conflict(
                "must be forced",
                "image is referenced in multiple repositories".to_owned(),
            );
        }
        if let Some(holder) = self.holder(id) {
            return conflict(
                "must be forced",
                format!("image is being used by {}", holder.with_state()),
            );
        }
        Ok(())
    }

    pub(crate) fn disk_usage(&self) -> DiskUsage {
        let state = self.state();
        let mut counts = std::collections::HashMap::new();
        for entry in state.images.values() {
            let mut own: Vec<_> = entry.diff_ids().to_vec();
            own.sort_unstable();
            own.dedup();
            for layer in own {
                *counts.entry(layer).or_insert(0_u32) += 1;
            }
        }
        let shared = state
            .images
            .values()
            .filter(|entry| !entry.record.hidden)
            .map(|entry| {
                let bytes = entry
                    .diff_ids()
                    .iter()
                    .filter(|layer| counts.get(layer).is_some_and(|count| *count > 1))
                    .filter_map(|layer| state.layers.get(layer))
                    .map(|layer| layer.size)
                    .sum();
                (entry.record.id, bytes)
            })
            .collect();
        DiskUsage {
            layers: disk_bytes(&state),
            shared,
        }
    }
}

fn disk_bytes(state: &State) -> u64 {
    state.layers.values().map(LayerRecord::stored).sum()
}

/// Whether there is at most one reference, or one tag with digests of the same repository.
fn is_single(references: &[Reference]) -> bool {
    if references.len() <= 1 {
        return true;
    }
    let tags: Vec<_> = references
        .iter()
        .filter(|reference| reference.digest().is_none())
        .collect();
    let repository = references.first().map(Reference::name);
    tags.len() <= 1
        && references
            .iter()
            .all(|reference| Some(reference.name()) == repository)
}

/// The references that are removed together with one: the last tag of a repository takes its
/// digests along.
fn untag(reference: Reference, references: Vec<Reference>) -> Untagging {
    let (mut gone, mut left): (Vec<_>, Vec<_>) = references
        .into_iter()
        .partition(|other| *other == reference);
    let same = |other: &Reference| other.name() == reference.name();
    let tag_left = left
        .iter()
        .any(|other| same(other) && other.digest().is_none());
    if reference.digest().is_none() && !tag_left {
        let (digests, others) = left.into_iter().partition(|other: &Reference| same(other));
        gone.extend::<Vec<_>>(digests);
        left = others;
    }
    Untagging { gone, left }
}
