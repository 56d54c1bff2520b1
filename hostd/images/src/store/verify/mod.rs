//! Checks all objects of images: archives, configurations and manifests against their digests, the
//! files that layers are mounted from against the archives, and documents against the running
//! store's memory.
//!
//! Nothing is locked meanwhile: an object that changes or disappears during the check counts as
//! sound. Documents that the store has in memory are written again. A damaged layer, configuration
//! or manifest is remembered: the next pull or load replaces the store's copy.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use keelson_model::verify::{Damage, VerifyLine};
use keelson_oci::digest::Digest;
use keelson_store::{Era, document};
use tokio::sync::mpsc;

use crate::error::{Flaw, ImageError};
use crate::layer::{BLOB, LayerRecord, RECORD, TAR};
use crate::records::{ImageRecord, Repositories};
use crate::store::{Pins, Store};
use file::Meter;

/// How many files are read at the same time.
const MAX_WORKERS: usize = 4;

/// The objects to check.
#[derive(Debug, Clone)]
enum Object {
    Layer(LayerRecord),
    /// Digest, and the bytes in memory.
    Config(Digest, Arc<[u8]>),
    Manifest(Digest),
    Record(ImageRecord),
    Names,
}

/// A running check.
struct Check<'a> {
    store: &'a Arc<Store>,
    lines: &'a mpsc::Sender<VerifyLine>,
    meter: Meter<'a>,
    damaged: AtomicU64,
}

/// Checks these images, or everything if none is named. Blocks. Ends early if the receiver of
/// `lines` is gone.
pub(crate) fn verify(
    store: &Arc<Store>,
    names: &[String],
    lines: &mpsc::Sender<VerifyLine>,
) -> Result<u64, ImageError> {
    let unreadable = {
        let mut state = store.state();
        state.read_again(&store.disk);
        state.unreadable_damage(&store.disk)
    };
    let (images, objects) = collect(store, names)?;
    let layers = objects.iter().filter_map(|object| match object {
        Object::Layer(record) => Some(record.stored()),
        _ => None,
    });
    let (count, bytes) = layers.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
    let _ = lines.blocking_send(VerifyLine::Started {
        images,
        layers: count,
        bytes,
    });
    let check = Check {
        store,
        lines,
        meter: Meter::new(lines),
        damaged: AtomicU64::new(unreadable.len() as u64),
    };
    for damage in unreadable {
        let _ = lines.blocking_send(VerifyLine::Damaged(damage));
    }
    let queue = Mutex::new(objects.into_iter());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(MAX_WORKERS) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    match next {
                        Some(object) if !lines.is_closed() => check.object(&object),
                        _ => break,
                    }
                }
            });
        }
    });
    let damaged = check.damaged.load(Ordering::Relaxed);
    let _ = lines.blocking_send(VerifyLine::Finished {
        damaged,
        bytes: check.meter.total(),
    });
    Ok(damaged)
}

/// All objects of the images, each once, the large ones first.
fn collect(store: &Store, names: &[String]) -> Result<(u64, Vec<Object>), ImageError> {
    let state = store.state();
    let mut chosen = BTreeSet::new();
    for name in names {
        match state.find(name) {
            // It is reported anyway.
            Err(ImageError::Unreadable { .. }) => {}
            found => {
                chosen.insert(found?.0.record.id);
            }
        }
    }
    if names.is_empty() {
        chosen.extend(state.images.keys());
    }
    let mut layers = BTreeMap::new();
    let mut small = Vec::new();
    for id in &chosen {
        let Some(entry) = state.images.get(id) else {
            continue;
        };
        small.push(Object::Record(entry.record.clone()));
        small.push(Object::Config(*id, Arc::clone(&entry.raw)));
        small.extend(entry.record.manifest.map(Object::Manifest));
        for diff_id in entry.diff_ids() {
            if let Some(record) = state.layers.get(diff_id) {
                layers.insert(*diff_id, record.clone());
            }
        }
    }
    // Unreadable documents are not overwritten.
    if names.is_empty() && state.unreadable.names.is_none() {
        small.push(Object::Names);
    }
    let mut objects: Vec<_> = layers.into_values().collect();
    objects.sort_by_key(|record| std::cmp::Reverse(record.stored()));
    let objects = objects.into_iter().map(Object::Layer).chain(small);
    Ok((chosen.len() as u64, objects.collect()))
}

impl Check<'_> {
    fn object(&self, object: &Object) {
        let disk = &self.store.disk;
        match object {
            Object::Layer(record) => {
                // If it disappeared and came back while it was read, it would seem damaged.
                let mut pins = Pins::new(self.store);
                if pins.hold(&record.diff_id) {
                    self.layer(record);
                }
            }
            Object::Config(digest, raw) => self.small(
                "configuration",
                object,
                &disk.blob(digest),
                |path| self.meter.file(path, digest, None),
                Some(&|| disk.restore_blob(digest, raw)),
            ),
            Object::Manifest(digest) => self.small(
                "manifest",
                object,
                &disk.blob(digest),
                |path| self.meter.file(path, digest, None),
                None,
            ),
            Object::Record(record) => self.small(
                "record",
                object,
                &disk.image(&record.id),
                |path| same_document(path, record, disk.era),
                Some(&|| disk.write_image(record)),
            ),
            Object::Names => self.names(object),
        }
    }

    fn names(&self, object: &Object) {
        let disk = &self.store.disk;
        let path = disk.repositories();
        // Under the lock, because names may change at any time.
        let state = self.store.state();
        if !path.exists() && state.repositories == Repositories::default() {
            return;
        }
        if state
            .unreadable
            .names
            .as_ref()
            .is_some_and(|(unreadable, _)| *unreadable == path)
        {
            // It is reported with all other unreadable objects, and stays unchanged.
            return;
        }
        if let Err(reason) = same_document(&path, &state.repositories, disk.era) {
            let restored = disk.write_repositories(&state.repositories).is_ok();
            drop(state);
            self.report(Found {
                kind: "names",
                object,
                path,
                reason,
                restored,
            });
        }
    }

    /// Checks a small object, and writes it again if the store has it in memory.
    fn small(
        &self,
        kind: &'static str,
        object: &Object,
        path: &Path,
        check: impl Fn(&Path) -> Result<(), Flaw>,
        restore: Option<&dyn Fn() -> Result<(), ImageError>>,
    ) {
        if check(path).is_ok() {
            return;
        }
        let (reason, restored) = {
            let state = self.store.state();
            // It may have disappeared, or disappeared and come back, meanwhile. Under the lock it
            // can't.
            match check(path) {
                Err(reason) if is_current(&state, object) => {
                    (reason, restore.is_some_and(|restore| restore().is_ok()))
                }
                _ => return,
            }
        };
        self.report(Found {
            kind,
            object,
            path: path.to_owned(),
            reason,
            restored,
        });
    }

    fn layer(&self, record: &LayerRecord) {
        let disk = &self.store.disk;
        let directory = disk.layer(&record.diff_id);
        let object = Object::Layer(record.clone());
        let found = |path: PathBuf, reason, restored| Found {
            kind: "layer",
            object: &object,
            path,
            reason,
            restored,
        };
        let path = directory.join(RECORD);
        if let Err(reason) = same_document(&path, record, self.store.disk.era) {
            let restored = {
                let state = self.store.state();
                is_current(&state, &object) && disk.write_layer(record).is_ok()
            };
            self.report(found(path, reason, restored));
        }
        let tar = directory.join(TAR);
        if let Err(reason) = self.meter.file(&tar, &record.diff_id, Some(record.size)) {
            self.report(found(tar, reason, false));
            return;
        }
        if let Some(blob) = &record.compressed {
            let path = directory.join(BLOB);
            if let Err(reason) = self.meter.file(&path, &blob.digest, Some(blob.size)) {
                self.report(found(path, reason, false));
            }
        }
        let limits = &self.store.layers.limits;
        if let Err((name, reason)) = file::mountable(record, &directory, limits) {
            self.report(found(directory.join(name), reason, false));
        }
    }

    /// Reports damage, unless the object has disappeared or changed meanwhile.
    fn report(&self, found: Found<'_>) {
        let (digest, images) = {
            let mut state = self.store.state();
            if !is_current(&state, found.object) {
                return;
            }
            let digest = found.object.digest();
            if let Some(digest) = digest
                && !found.restored
            {
                state.damaged.insert(digest);
            }
            (digest, users(&state, found.object))
        };
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let remedy = match (found.restored, images.is_empty()) {
            (true, _) => "it was written again from hostd's memory; if this happens again, look \
                          at the disk's health"
                .to_owned(),
            (false, true) => "nothing: no image needs it".to_owned(),
            (false, false) => format!(
                "pull or load {} again, which replaces the damaged parts, or remove them \
                 (docker image rm -f); look at the disk's health",
                images.join(", ")
            ),
        };
        tracing::error!(kind = found.kind, path = %found.path.display(), reason = %found.reason, "damaged");
        let _ = self.lines.blocking_send(VerifyLine::Damaged(Damage {
            kind: found.kind.to_owned(),
            digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
            path: found.path.display().to_string(),
            reason: found.reason.to_string(),
            images,
            remedy,
        }));
    }
}

/// Damage that was found.
struct Found<'a> {
    kind: &'static str,
    object: &'a Object,
    path: PathBuf,
    reason: Flaw,
    restored: bool,
}

impl Object {
    fn digest(&self) -> Option<Digest> {
        match self {
            Self::Layer(record) => Some(record.diff_id),
            Self::Config(digest, _) | Self::Manifest(digest) => Some(*digest),
            Self::Record(record) => Some(record.id),
            Self::Names => None,
        }
    }
}

/// Whether the store still has the same object as at the beginning of the check.
fn is_current(state: &crate::state::State, object: &Object) -> bool {
    match object {
        Object::Layer(record) => state.layers.get(&record.diff_id) == Some(record),
        Object::Config(digest, _) => state.images.contains_key(digest),
        Object::Manifest(digest) => state
            .images
            .values()
            .any(|entry| entry.record.manifest == Some(*digest)),
        Object::Record(record) => state
            .images
            .get(&record.id)
            .is_some_and(|entry| entry.record == *record),
        Object::Names => true,
    }
}

/// The images that need the object, by their names, or by identifier.
fn users(state: &crate::state::State, object: &Object) -> Vec<String> {
    let needs = |entry: &crate::state::Entry| match object {
        Object::Layer(record) => entry.diff_ids().contains(&record.diff_id),
        Object::Config(digest, _) => entry.record.id == *digest,
        Object::Manifest(digest) => entry.record.manifest == Some(*digest),
        Object::Record(record) => entry.record.id == record.id,
        Object::Names => true,
    };
    let names = |entry: &crate::state::Entry| {
        let names: Vec<_> = state
            .references_of(entry.record.id)
            .into_iter()
            .filter(|(reference, _)| reference.digest().is_none())
            .map(|(reference, _)| reference.familiar())
            .collect();
        match names.is_empty() {
            true => vec![entry.record.id.to_string()],
            false => names,
        }
    };
    let users = state.images.values().filter(|entry| needs(entry));
    users.flat_map(names).collect()
}

/// Whether a document on disk is the one in memory.
fn same_document<T: document::Document + PartialEq>(
    path: &Path,
    known: &T,
    era: Era,
) -> Result<(), Flaw> {
    let found = std::fs::read(path)?;
    let read: T = document::parse(path, &found)?;
    let written = document::bytes(path, known, era)?;
    // An older or newer release may have written more or fewer members. A flipped bit (in the name
    // of a member, for example) does not change the length.
    match read == *known && (found == written || found.len() != written.len()) {
        true => Ok(()),
        false => Err(Flaw::Differs("it does not say what hostd wrote".to_owned())),
    }
}
