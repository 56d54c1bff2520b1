//! The store itself: state, commits, mounts, events.
//!
//! No other module locks the state. They use the methods in `questions`. The modules for removal
//! and for checks are inside.

mod questions;
mod remove;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use keelson_lease::{Claim, Leases};
use keelson_model::limits;
use keelson_oci::config::ImageConfig;
use keelson_oci::digest::Digest;
use keelson_oci::reference::Reference;
use keelson_store::{Durability, Era, Rest, document};
use tokio::sync::broadcast;

pub(crate) use self::questions::Before;
pub(crate) use self::verify::verify;
use crate::disk::{Disk, Staging};
use crate::doomed::Doomed;
use crate::durable;
use crate::error::ImageError;
use crate::layer::{LayerForm, LayerOptions, LayerRecord};
use crate::lease::{Holder, ImageLease};
use crate::mounts::{MountCall, Mounts, mount_erofs};
use crate::reaper::Reaper;
use crate::records::{ImageRecord, Tagged};
use crate::seal::{self, Sealer};
use crate::state::{Entry, State};
use crate::types::{Image, ImageAction, ImageEvent, ImageId, ImageStoreOptions, RootfsLayers};

/// How many layers an image may have: overlayfs stacks no more.
pub(crate) const MAX_LAYERS: usize = 500;
/// How many events a slow reader may be behind before it loses some.
const EVENT_QUEUE: usize = 1024;

/// The store, shared by all clones of [`crate::ImageStore`].
#[derive(Debug)]
pub(crate) struct Store {
    /// Dropped before the disk, whose lock must be held until everything is deleted.
    reaper: Reaper,
    sealer: Option<Sealer>,
    pub disk: Disk,
    /// How new layers are made.
    pub layers: LayerOptions,
    mounts: Arc<Mounts>,
    /// The holders of images. Leases are taken under the state's lock, and checked under it before
    /// a removal.
    leases: Leases<ImageId, Holder>,
    /// Removed objects that are kept for their holders.
    doomed: Arc<Doomed>,
    state: Mutex<State>,
    events: broadcast::Sender<ImageEvent>,
}

/// An image that is ready to be committed.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub config: ImageConfig,
    pub raw: Vec<u8>,
    pub manifest: Option<Vec<u8>>,
    pub parent: Option<ImageId>,
    pub references: Vec<Reference>,
}

/// Layers that stay in the store while this lives, although no image may need them.
#[derive(Debug)]
pub(crate) struct Pins {
    store: Arc<Store>,
    layers: Vec<Digest>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for layer in &self.layers {
            if let Some(count) = state.pins.get_mut(layer) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(layer);
                }
            }
        }
        let _ = self.store.remove_unused_layers(&mut state);
    }
}

impl Pins {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        Self {
            store: Arc::clone(store),
            layers: Vec::new(),
        }
    }

    /// Keeps a layer on disk, if the store has it, whatever its state.
    pub(crate) fn hold(&mut self, layer: &Digest) -> bool {
        let mut state = self.store.state();
        let known = state.layers.contains_key(layer);
        if known {
            *state.pins.entry(*layer).or_insert(0) += 1;
            self.layers.push(*layer);
        }
        known
    }

    /// Pins a layer if the store has it and it is not known to be damaged, and returns its record.
    pub(crate) fn pin(&mut self, layer: &Digest) -> Option<LayerRecord> {
        let mut state = self.store.state();
        let record = state.layers.get(layer)?.clone();
        if state.damaged.contains(layer) {
            return None;
        }
        *state.pins.entry(*layer).or_insert(0) += 1;
        self.layers.push(*layer);
        Some(record)
    }

    /// Pins a layer, whether the store has it now or will have it. Returns whether the store has it
    /// and it is not known to be damaged.
    pub(crate) fn expect(&mut self, layer: &Digest) -> bool {
        let mut state = self.store.state();
        *state.pins.entry(*layer).or_insert(0) += 1;
        self.layers.push(*layer);
        state.layers.contains_key(layer) && !state.damaged.contains(layer)
    }
}

impl Store {
    pub(crate) fn open(
        root: &Path,
        run: &Path,
        options: &ImageStoreOptions,
    ) -> Result<Self, ImageError> {
        let disk = Disk::open(root, options.era)?;
        let doomed = Arc::new(Doomed::default());
        let mounts = Mounts::open(run, Arc::clone(&doomed))?;
        let state = disk.read()?;
        let released = Arc::clone(&doomed);
        let leases = Leases::new(move || released.poke());
        let form = match options.directories {
            true => LayerForm::Directory,
            false => disk.best_form(),
        };
        let reaper = Reaper::start(disk.reserve.clone())
            .map_err(ImageError::io("start the deleting thread for", root))?;
        let sealer = Sealer::start(&disk);
        let store = Self {
            reaper,
            sealer,
            disk,
            layers: LayerOptions {
                form,
                limits: options.limits.clone(),
                keep_compressed: options.keep_compressed,
                era: options.era,
            },
            mounts,
            leases,
            doomed,
            state: Mutex::new(state),
            events: broadcast::channel(EVENT_QUEUE).0,
        };
        store.remove_unused_layers(&mut store.state())?;
        store
            .state()
            .layers
            .values()
            .for_each(|layer| store.seal(layer));
        Ok(store)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits images whose layers are staged (`layers`, by digest) or in the store and pinned.
    /// All become visible, or none.
    pub(crate) fn commit(
        &self,
        staging: &Staging,
        layers: &BTreeMap<Digest, PathBuf>,
        images: Vec<NewImage>,
        action: ImageAction,
    ) -> Result<Vec<ImageId>, ImageError> {
        let mut staged = Vec::new();
        for mut image in images {
            let layers_of_image = image.config.rootfs.diff_ids.len();
            if layers_of_image > MAX_LAYERS {
                return Err(ImageError::Archive(format!(
                    "the image would have {layers_of_image} layers, where at most {MAX_LAYERS} can \
                     be mounted; make it of fewer"
                )));
            }
            self.settle_manifest(layers, &mut image)?;
            staged.push(self.write_staged(staging, image)?);
        }
        let mut paths: Vec<PathBuf> = layers.values().cloned().collect();
        paths.extend(staged.iter().flat_map(Staged::files));
        durable::sync(&staging.path, paths)?;
        let mut state = self.state();
        if let Err(error) = self.place(&mut state, layers, &staged) {
            // For example, the disk is full: what became visible on disk is removed again.
            for image in &staged {
                let record = &image.entry.record;
                if !state.images.contains_key(&record.id)
                    && let Err(error) = self.disk.remove_image(record)
                {
                    tracing::warn!(image = %record.id, %error, "half a commit is left");
                }
            }
            let _ = self.remove_unused_layers(&mut state);
            return Err(error);
        }
        let mut ids = Vec::new();
        for image in staged {
            let id = image.entry.record.id;
            let manifest = image.entry.record.manifest;
            state.unreadable.images.remove(&id);
            // Only after everything is done: until then the layer belongs to its earlier image.
            if let Some(known) = state.images.insert(id, image.entry)
                && let Some(old) = known.record.manifest.filter(|old| manifest != Some(*old))
            {
                self.disk.remove_blob(&old);
            }
            for reference in &image.references {
                if !matches!(action, ImageAction::Load | ImageAction::Pull) {
                    self.emit(&state, ImageAction::Tag, id, reference.familiar());
                }
            }
            let name = match (action, image.references.first()) {
                (ImageAction::Pull, Some(reference)) => reference.familiar(),
                _ => id.to_string(),
            };
            if action != ImageAction::Commit {
                self.emit(&state, action, id, name);
            }
            ids.push(id);
        }
        // A new layer may be the one that other images lacked.
        state.read_again(&self.disk);
        Ok(ids)
    }

    fn write_staged(&self, staging: &Staging, image: NewImage) -> Result<Staged, ImageError> {
        let known = {
            let state = self.state();
            let entry = state.images.get(&Digest::of(&image.raw));
            entry.map(|entry| entry.record.rest.clone())
        };
        Staged::write(staging, image, known.unwrap_or_default(), self.layers.era)
    }

    /// The renames of a commit, in the order in which objects refer to each other. After a crash,
    /// the next start removes objects without an image.
    fn place(
        &self,
        state: &mut State,
        layers: &BTreeMap<Digest, PathBuf>,
        staged: &[Staged],
    ) -> Result<(), ImageError> {
        for (diff_id, directory) in layers {
            if state.layers.contains_key(diff_id) && !self.make_room(state, diff_id)? {
                continue;
            }
            let record: LayerRecord = document::read(&directory.join(crate::layer::RECORD))?
                .ok_or_else(|| ImageError::Damaged(format!("staged layer {diff_id} vanished")))?;
            if state.unreadable.layers.contains_key(diff_id) {
                self.disk.put_layer_aside(diff_id)?;
                state.unreadable.layers.remove(diff_id);
            }
            self.disk.place_layer(directory, diff_id)?;
            self.seal(&record);
            state.layers.insert(*diff_id, record);
            state.damaged.remove(diff_id);
        }
        for image in staged {
            for diff_id in image.entry.diff_ids() {
                if !state.layers.contains_key(diff_id) {
                    return Err(ImageError::Damaged(format!("layer {diff_id} vanished")));
                }
            }
        }
        for image in staged {
            self.disk
                .place_blob(&image.config, &image.entry.record.id)?;
            if let (Some(path), Some(digest)) = (&image.manifest, &image.entry.record.manifest) {
                self.disk.place_blob(path, digest)?;
            }
            self.disk.spare_newer_image(&image.entry.record.id)?;
            self.disk
                .place_image(&image.record, &image.entry.record.id)?;
            state.damaged.remove(&image.entry.record.id);
            if let Some(manifest) = &image.entry.record.manifest {
                state.damaged.remove(manifest);
            }
        }
        let mut repositories = state.repositories.clone();
        let time = Timestamp::now().to_string();
        for image in staged {
            for reference in &image.references {
                let id = image.entry.record.id;
                let time = time.clone();
                repositories
                    .references
                    .insert(reference.to_string(), Tagged::new(id, time));
            }
        }
        // The new file of names is synchronised before the directories, and renamed after them. So
        // one commit of the journal is enough for all renames above, and no name is on the disk
        // before its image.
        let names = (repositories != state.repositories)
            .then(|| self.disk.prepare_repositories(&repositories))
            .transpose()?;
        self.disk.flush()?;
        if let Some(names) = names {
            names.place()?;
            state.repositories = repositories;
        }
        Ok(())
    }

    /// Queues a layer for sealing, if sealing is possible.
    fn seal(&self, record: &LayerRecord) {
        if let Some(sealer) = &self.sealer {
            sealer.take(self.disk.layer(&record.diff_id), record);
        }
    }

    /// Moves a damaged layer out of the way of a new copy. False if the damaged one stays. Existing
    /// mounts read the damaged files until they are released.
    fn make_room(&self, state: &mut State, diff_id: &Digest) -> Result<bool, ImageError> {
        let Some(record) = state
            .layers
            .get(diff_id)
            .filter(|_| state.damaged.contains(diff_id))
        else {
            return Ok(false);
        };
        let name = diff_id.hex();
        if record.form.backend().direct().is_some() && self.mounts.is_held(&name) {
            tracing::warn!(layer = %diff_id, "a damaged layer stays while containers use it");
            return Ok(false);
        }
        self.reaper.take(self.disk.remove_layer(diff_id)?);
        state.layers.remove(diff_id);
        self.mounts.renew(&name);
        Ok(true)
    }

    /// Sends an event about an image. The image must still exist, because the event has its labels.
    fn emit(&self, state: &State, action: ImageAction, id: ImageId, name: String) {
        let labels = state
            .images
            .get(&id)
            .and_then(|entry| entry.config.config.labels.as_ref())
            .map(|labels| {
                // Labels are limited, because events wait in queues.
                limits::fitting(labels, limits::EVENT)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect()
            })
            .unwrap_or_default();
        self.send(ImageEvent {
            action,
            id: Some(id),
            name,
            reclaimed: None,
            labels,
            time: now(),
        });
    }

    /// Reports that unused images were removed.
    fn emit_prune(&self, reclaimed: u64) {
        self.send(ImageEvent {
            action: ImageAction::Prune,
            id: None,
            name: String::new(),
            reclaimed: Some(reclaimed),
            labels: Vec::new(),
            time: now(),
        });
    }

    fn send(&self, event: ImageEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ImageEvent> {
        self.events.subscribe()
    }

    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        let state = self.state();
        let mut images: Vec<_> = state
            .images
            .values()
            .filter(|entry| !entry.record.hidden)
            .map(|entry| Arc::new(state.image(entry)))
            .collect();
        let unreadable = state.unreadable.images.iter();
        images.extend(unreadable.map(|(id, one)| Arc::new(state.unreadable_image(*id, one))));
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        images
    }

    pub(crate) fn resolve(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        let state = self.state();
        let (entry, _) = state.find(name)?;
        Ok(Arc::new(state.image(entry)))
    }

    pub(crate) fn lease(
        &self,
        name: &str,
        holder: Holder,
    ) -> Result<(ImageLease, Arc<Image>), ImageError> {
        let state = self.state();
        let (entry, _) = state.find(name)?;
        let lease = self.leases.take(Claim::One(entry.record.id), holder);
        Ok((ImageLease(lease), Arc::new(state.image(entry))))
    }

    pub(crate) fn lease_again(&self, id: Option<ImageId>, holder: Holder) -> ImageLease {
        let _state = self.state();
        let claim = id.map_or(Claim::Any, Claim::One);
        ImageLease(self.leases.take(claim, holder))
    }

    pub(crate) fn containers(&self, id: &ImageId) -> Vec<String> {
        let holders = self.leases.known_holders(id);
        let ids = holders.iter().filter_map(|holder| holder.container_id());
        ids.map(str::to_owned).collect()
    }

    pub(crate) fn tag(&self, name: &str, reference: &str) -> Result<(), ImageError> {
        let reference = reference.parse::<Reference>()?.with_default_tag();
        if reference.digest().is_some() {
            return Err(ImageError::Invalid(
                "refusing to create a tag with a digest reference".to_owned(),
            ));
        }
        if reference.familiar_name() == "sha256" {
            return Err(ImageError::Invalid(
                "refusing to create an ambiguous tag using digest algorithm as name".to_owned(),
            ));
        }
        let mut state = self.state();
        let id = state.find(name)?.0.record.id;
        let mut repositories = state.repositories.clone();
        let time = Timestamp::now().to_string();
        repositories
            .references
            .insert(reference.to_string(), Tagged::new(id, time));
        self.disk.write_repositories(&repositories)?;
        state.repositories = repositories;
        self.emit(&state, ImageAction::Tag, id, reference.familiar());
        Ok(())
    }

    /// Gives an image another name, and sends the event that caused it.
    pub(crate) fn name(
        &self,
        id: ImageId,
        reference: &Reference,
        action: ImageAction,
        event_name: String,
    ) -> Result<(), ImageError> {
        let mut state = self.state();
        // It may have been removed meanwhile. Then it gets no name.
        if state
            .images
            .get(&id)
            .is_some_and(|entry| !entry.record.hidden)
        {
            let mut repositories = state.repositories.clone();
            let time = Timestamp::now().to_string();
            let tagged = repositories.references.entry(reference.to_string());
            tagged.or_insert(Tagged::new(id, time)).id = id;
            if repositories != state.repositories {
                self.disk.write_repositories(&repositories)?;
                state.repositories = repositories;
            }
        }
        self.emit(&state, action, id, event_name);
        Ok(())
    }

    /// Removes layers that nothing needs, and returns their digests and sizes.
    fn remove_unused_layers(&self, state: &mut State) -> Result<Vec<(Digest, u64)>, ImageError> {
        let (mut removed, mut held) = (Vec::new(), Vec::new());
        for diff_id in state.unused_layers() {
            if self.mounts.is_held(&diff_id.hex()) {
                held.push(diff_id.hex());
                continue;
            }
            self.reaper.take(self.disk.remove_layer(&diff_id)?);
            let layer = state.layers.remove(&diff_id);
            state.damaged.remove(&diff_id);
            let size = layer.map_or(0, |layer| layer.stored());
            removed.push((diff_id, size));
        }
        if !held.is_empty() {
            self.leave(|| held.iter().all(|name| self.mounts.is_held(name)));
        }
        Ok(removed)
    }

    /// Keeps an object for its holders. `is_held` is called again.
    fn leave(&self, is_held: impl Fn() -> bool) {
        self.doomed.mark();
        if !is_held() {
            self.doomed.poke();
        }
    }

    pub(crate) fn mount(&self, id: &ImageId) -> Result<RootfsLayers, ImageError> {
        let state = self.state();
        let entry = state
            .images
            .get(id)
            .ok_or_else(|| match state.unreadable.error(id) {
                Some(error) => error,
                None => ImageError::NotFound(id.to_string()),
            })?;
        let mut wanted: Vec<(String, MountCall<'_>)> = Vec::new();
        let mut direct = HashMap::new();
        for diff_id in entry.diff_ids().iter().rev() {
            let name = diff_id.hex();
            // A layer that appears twice has its effect at the topmost position.
            if wanted.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let layer = state
                .layers
                .get(diff_id)
                .ok_or_else(|| ImageError::Damaged(format!("layer {diff_id} is missing")))?;
            let backend = layer.form.backend();
            let directory = self.disk.layer(diff_id);
            if let Some(sub_directory) = backend.direct() {
                direct.insert(name.clone(), directory.join(sub_directory));
                wanted.push((name, None));
            } else {
                let call = move |point: &Path| {
                    seal::check(&directory, layer)?;
                    backend.mount(&directory, point)
                };
                wanted.push((name, Some(Box::new(call))));
            }
        }
        if wanted.is_empty() {
            return Err(ImageError::Invalid(format!("image {id} has no layers")));
        }
        let (points, hold) = self.mounts.hold(&wanted)?;
        let lower = wanted
            .iter()
            .zip(points)
            .map(|((name, _), point)| direct.remove(name).unwrap_or(point))
            .collect();
        Ok(RootfsLayers {
            lower,
            hold: Arc::new(hold),
        })
    }

    pub(crate) fn system_image(&self, files: &[&Path]) -> Result<RootfsLayers, ImageError> {
        let mut wanted: Vec<(String, MountCall<'_>)> = Vec::new();
        for file in files {
            let metadata = fs::metadata(file).map_err(ImageError::io("find", file))?;
            // Another file at the same path is another layer, while containers still use the old one.
            let name = format!("system-{:x}-{:x}", metadata.ino(), metadata.mtime());
            let call = |point: &Path| mount_erofs(file, None, point);
            wanted.push((name, Some(Box::new(call))));
        }
        let (lower, hold) = self.mounts.hold(&wanted)?;
        Ok(RootfsLayers {
            lower,
            hold: Arc::new(hold),
        })
    }

    pub(crate) fn shutdown(&self) {
        self.mounts.clear();
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// An image whose documents lie in the staging directory.
struct Staged {
    entry: Entry,
    config: PathBuf,
    manifest: Option<PathBuf>,
    record: PathBuf,
    references: Vec<Reference>,
}

impl Staged {
    /// The objects that must be on the disk before the image becomes visible.
    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let files = [
            Some(&self.config),
            self.manifest.as_ref(),
            Some(&self.record),
        ];
        files.into_iter().flatten().cloned()
    }

    fn write(staging: &Staging, image: NewImage, rest: Rest, era: Era) -> Result<Self, ImageError> {
        let write = |name: String, bytes: &[u8]| -> Result<PathBuf, ImageError> {
            let path = staging.path.join(name);
            fs::write(&path, bytes).map_err(ImageError::io("write", &path))?;
            Ok(path)
        };
        let id = Digest::of(&image.raw);
        let config = write(format!("{}.config", id.hex()), &image.raw)?;
        let mut manifest = None;
        let mut manifest_digest = None;
        if let Some(bytes) = &image.manifest {
            manifest = Some(write(format!("{}.manifest", id.hex()), bytes)?);
            manifest_digest = Some(Digest::of(bytes));
        }
        let record = ImageRecord {
            id,
            manifest: manifest_digest,
            parent: image.parent,
            hidden: false,
            rest,
        };
        let path = staging.path.join(format!("{}.json", id.hex()));
        document::write(&path, &record, era, Durability::Relaxed)?;
        Ok(Self {
            entry: Entry::new(record, image.config, image.raw),
            config,
            manifest,
            record: path,
            references: image.references,
        })
    }
}
