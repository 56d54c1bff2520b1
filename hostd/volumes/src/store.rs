//! Creating, finding, holding and removing volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use keelson_lease::{Claim, Leases};
use keelson_store::{Durability, Era, Objects, document, objects::remove_tree};
use tokio::sync::broadcast;

use crate::VolumeError;
use crate::document::{DATA, VOLUME, VolumeDocument};
use crate::mounted::{self, Usage, lock};
use crate::name;
use crate::options;
use crate::types::{LOCAL, NewVolume, Pruned, Volume, VolumeEvent, VolumeLease};

/// Events that a slow subscriber may lag behind before it loses some.
const EVENT_BACKLOG: usize = 1024;

/// The volumes of a host. Clones share them. All calls that change something block on files.
#[derive(Debug, Clone)]
pub struct VolumeStore(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    objects: Objects,
    era: Era,
    /// Held while volumes are made or removed, so that a name is one volume.
    changes: Mutex<()>,
    volumes: Mutex<BTreeMap<String, Arc<Volume>>>,
    leases: Leases<String, String>,
    pub(crate) usage: Usage,
    pruning: AtomicBool,
    events: broadcast::Sender<VolumeEvent>,
}

/// Keeps a second prune away while it exists.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(pruning: &'a AtomicBool) -> Result<Self, VolumeError> {
        match pruning.swap(true, Ordering::AcqRel) {
            true => Err(VolumeError::Pruning),
            false => Ok(Self(pruning)),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl VolumeStore {
    /// Opens the volumes in `base`. `boot` identifies the running boot of the kernel. A volume whose
    /// document can't be read is kept as it is, and listed.
    ///
    /// # Errors
    /// The directory can't be made or read.
    pub fn open(base: &Path, boot: &str, era: Era) -> Result<Self, VolumeError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(base)
            .map_err(VolumeError::io("mkdir", base))?;
        let objects = Objects::open(base, VOLUME, boot)?;
        let mut volumes = BTreeMap::new();
        for name in objects.names()? {
            match read(&objects, &name) {
                Ok(volume) => drop(volumes.insert(name, Arc::new(volume))),
                Err(error) => tracing::error!(name, %error, "volume can't be listed"),
            }
        }
        Ok(Self(Arc::new(Inner {
            objects,
            era,
            changes: Mutex::default(),
            volumes: Mutex::new(volumes),
            leases: Leases::new(|| {}),
            usage: Usage::default(),
            pruning: AtomicBool::new(false),
            events: broadcast::channel(EVENT_BACKLOG).0,
        })))
    }

    /// All volumes, by name.
    pub fn list(&self) -> Vec<Arc<Volume>> {
        lock(&self.0.volumes).values().cloned().collect()
    }

    /// One volume.
    ///
    /// # Errors
    /// [`VolumeError::NoSuchVolume`].
    pub fn inspect(&self, name: &str) -> Result<Arc<Volume>, VolumeError> {
        let volumes = lock(&self.0.volumes);
        let found = volumes.get(name).cloned();
        found.ok_or_else(|| VolumeError::NoSuchVolume(name.to_owned()))
    }

    /// Makes a volume, or finds the one of that name, whose options and labels stay as they are.
    ///
    /// # Errors
    /// A name, driver or option that is not allowed; the disk fails.
    pub fn create(&self, new: NewVolume) -> Result<Arc<Volume>, VolumeError> {
        let _changes = lock(&self.0.changes);
        Ok(self.0.create(new)?.0)
    }

    /// As [`VolumeStore::create`], and holds the volume for a container. Also: whether it was made.
    ///
    /// # Errors
    /// As for [`VolumeStore::create`], and a volume that can't be read.
    pub fn create_held(
        &self,
        new: NewVolume,
        container: &str,
    ) -> Result<(Arc<Volume>, VolumeLease, bool), VolumeError> {
        // Nobody can remove it before it is held.
        let _changes = lock(&self.0.changes);
        let (volume, made) = self.0.create(new)?;
        if let Some(reason) = &volume.unreadable {
            return Err(VolumeError::Unreadable {
                name: volume.name.clone(),
                reason: reason.clone(),
            });
        }
        let lease = self.hold(&volume.name, container);
        Ok((volume, lease, made))
    }

    /// Holds a volume for a container that is known to have it.
    pub fn hold(&self, name: &str, container: &str) -> VolumeLease {
        let claim = Claim::One(name.to_owned());
        self.0.leases.take(claim, container.to_owned())
    }

    /// Holds every volume for a container of which it is not known what it has.
    pub fn hold_all(&self, container: &str) -> VolumeLease {
        self.0.leases.take(Claim::Any, container.to_owned())
    }

    /// The containers that hold a volume, oldest first.
    pub fn holders(&self, name: &str) -> Vec<String> {
        let mut holders: Vec<String> = Vec::new();
        for holder in self.0.leases.holders(&name.to_owned()) {
            if !holders.contains(&holder) {
                holders.push((*holder).clone());
            }
        }
        holders
    }

    /// How many containers are known to hold a volume.
    pub fn references(&self, name: &str) -> usize {
        self.0.leases.known_holders(&name.to_owned()).len()
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// There is none, or containers hold it.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let trash = self.0.take_away(name)?;
        delete(name, trash);
        Ok(())
    }

    /// Removes the volumes that nobody holds and that `wanted` chooses. `measure` says how many bytes
    /// one takes.
    ///
    /// # Errors
    /// [`VolumeError::Pruning`].
    pub fn prune(
        &self,
        wanted: impl Fn(&Volume) -> bool,
        measure: impl Fn(&Volume) -> u64,
    ) -> Result<Pruned, VolumeError> {
        let _turn = Turn::take(&self.0.pruning)?;
        let mut pruned = Pruned::default();
        for volume in self.list() {
            let held = self.0.leases.is_held(&volume.name);
            if held || volume.unreadable.is_some() || !wanted(&volume) {
                continue;
            }
            let bytes = measure(&volume);
            match self.0.take_away(&volume.name) {
                Ok(trash) => {
                    delete(&volume.name, trash);
                    pruned.bytes += bytes;
                    pruned.names.push(volume.name.clone());
                }
                // Taken or removed by others meanwhile.
                Err(VolumeError::InUse { .. } | VolumeError::NoSuchVolume(_)) => {}
                Err(error) => tracing::warn!(name = volume.name, %error, "volume not removed"),
            }
        }
        self.0
            .emit("prune", "", [("reclaimed", pruned.bytes.to_string())]);
        Ok(pruned)
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<VolumeEvent> {
        self.0.events.subscribe()
    }
}

impl Inner {
    /// To be called with `changes` held. Also: whether it was made.
    fn create(&self, new: NewVolume) -> Result<(Arc<Volume>, bool), VolumeError> {
        let NewVolume {
            mut name,
            driver,
            options,
            mut labels,
        } = new;
        if name.is_empty() {
            name = name::generate();
            labels.insert(name::ANONYMOUS.to_owned(), String::new());
        }
        let invalid = |reason| VolumeError::Invalid {
            name: name.clone(),
            reason,
        };
        if !matches!(driver.as_str(), "" | LOCAL) {
            return Err(VolumeError::NoSuchDriver { name, driver });
        }
        name::check(&name).map_err(invalid)?;
        if let Some(found) = lock(&self.volumes).get(&name) {
            return Ok((Arc::clone(found), false));
        }
        options::check(&options).map_err(invalid)?;
        let document = VolumeDocument {
            name: name.clone(),
            driver: LOCAL.to_owned(),
            created: Timestamp::now(),
            options,
            labels,
            rest: document::Rest::default(),
        };
        let volume = match self.make(&document) {
            Ok(directory) => Arc::new(volume(document, &directory)),
            Err(error) => {
                if let Ok(trash) = self.objects.discard(&name) {
                    delete(&name, trash);
                }
                return Err(error);
            }
        };
        lock(&self.volumes).insert(name.clone(), Arc::clone(&volume));
        self.emit("create", &name, [("driver", LOCAL.to_owned())]);
        Ok((volume, true))
    }

    /// Makes a volume's directory. It exists when its document does.
    fn make(&self, document: &VolumeDocument) -> Result<PathBuf, VolumeError> {
        let directory = self.objects.prepare(&document.name)?;
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(VolumeError::io("chmod", path))
        };
        let data = directory.join(DATA);
        fs::create_dir(&data).map_err(VolumeError::io("mkdir", &data))?;
        // Users of containers may be anybody; the umask of hostd's caller must not matter.
        set_mode(&data, 0o755)?;
        set_mode(&directory, 0o711)?;
        let path = self.objects.document(&document.name)?;
        document::write(&path, document, self.era, Durability::Flushed)?;
        self.objects.settle(&document.name);
        Ok(directory)
    }

    /// Takes a volume that nobody holds away, and returns where its files wait to be deleted.
    fn take_away(&self, name: &str) -> Result<Option<PathBuf>, VolumeError> {
        let _changes = lock(&self.changes);
        let mut volumes = lock(&self.volumes);
        let Some(volume) = volumes.get(name).cloned() else {
            return Err(VolumeError::NoSuchVolume(name.to_owned()));
        };
        let key = name.to_owned();
        if self.leases.is_held(&key) {
            let holders = self.leases.holders(&key);
            return Err(VolumeError::InUse {
                name: key,
                holders: holders.iter().map(|holder| (**holder).clone()).collect(),
            });
        }
        // A mount that an earlier engine has left must not be deleted through.
        mounted::unmount(&volume.mountpoint)?;
        let trash = self.objects.discard(name)?;
        volumes.remove(name);
        drop(volumes);
        self.usage.forget(name);
        self.emit("destroy", name, [("driver", volume.driver.clone())]);
        Ok(trash)
    }

    pub(crate) fn emit<const N: usize>(
        &self,
        action: &'static str,
        name: &str,
        attributes: [(&str, String); N],
    ) {
        let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
        // Without subscribers there is nobody to tell.
        let _ = self.events.send(VolumeEvent {
            action,
            name: name.to_owned(),
            attributes: BTreeMap::from(attributes),
            time: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        });
    }
}

fn delete(name: &str, trash: Option<PathBuf>) {
    if let Some(trash) = trash
        && let Err(error) = remove_tree(&trash)
    {
        tracing::warn!(name, %error, "files of a removed volume not deleted");
    }
}

fn volume(document: VolumeDocument, directory: &Path) -> Volume {
    Volume {
        name: document.name,
        driver: document.driver,
        created: document.created,
        options: document.options,
        labels: document.labels,
        mountpoint: directory.join(DATA),
        unreadable: None,
    }
}

/// A volume as it is on the disk.
fn read(objects: &Objects, name: &str) -> Result<Volume, VolumeError> {
    let directory = objects.directory(name)?;
    let why = match document::read::<VolumeDocument>(&objects.document(name)?) {
        Ok(Some(document)) if document.name == name => return Ok(volume(document, &directory)),
        Ok(Some(document)) => format!("its document is of volume {}", document.name),
        Ok(None) => "its document is missing".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::error!(name, error = why, "volume can't be read");
    Ok(Volume {
        name: name.to_owned(),
        driver: LOCAL.to_owned(),
        created: Timestamp::UNIX_EPOCH,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        mountpoint: directory.join(DATA),
        unreadable: Some(why),
    })
}

#[cfg(test)]
mod tests;
