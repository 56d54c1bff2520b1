//! The volumes of a host in memory, and the shared state of all operations.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use keelson_lease::{Claim, Leases};
use keelson_store::{Era, Objects, document};
use tokio::sync::broadcast;

use crate::VolumeError;
use crate::document::{DATA, VOLUME, VolumeDocument};
use crate::ledger::Ledger;
use crate::lock::lock;
use crate::mounted::Usage;
use crate::name;
use crate::names::Names;
use crate::plugins::Plugins;
use crate::types::{LOCAL, Reach, StoreOptions, Volume, VolumeAction, VolumeEvent, VolumeLease};

/// How many events a slow subscriber may lag behind before it loses some.
const EVENT_BACKLOG: usize = 1024;

/// The volumes of a host. Clones share them. All calls that change something block on files, and on
/// plugins if their documentation says so.
#[derive(Debug, Clone)]
pub struct VolumeStore(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) objects: Objects,
    pub(crate) era: Era,
    /// A name is one volume.
    pub(crate) names: Names,
    pub(crate) volumes: Mutex<BTreeMap<String, Arc<Volume>>>,
    pub(crate) leases: Leases<String, String>,
    pub(crate) usage: Usage,
    pub(crate) plugins: Plugins,
    pub(crate) ledger: Ledger,
    pub(crate) pruning: AtomicBool,
    events: broadcast::Sender<VolumeEvent>,
}

impl VolumeStore {
    /// Opens the volumes of a host. A volume whose document can't be read is listed and not
    /// changed. No plugin is asked.
    ///
    /// # Errors
    /// The directory can't be made or read.
    pub fn open(options: StoreOptions) -> Result<Self, VolumeError> {
        let base = &options.base;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(base)
            .map_err(VolumeError::io("mkdir", base))?;
        let objects = Objects::open(base, VOLUME, &options.boot)?;
        let mut volumes = BTreeMap::new();
        for directory in objects.names()? {
            match read(&objects, &directory) {
                Ok(volume) => drop(volumes.insert(volume.name.clone(), Arc::new(volume))),
                Err(error) => tracing::error!(name = directory, %error, "volume can't be listed"),
            }
        }
        Ok(Self(Arc::new(Inner {
            objects,
            era: options.era,
            names: Names::default(),
            volumes: Mutex::new(volumes),
            leases: Leases::new(|| {}),
            usage: Usage::default(),
            plugins: Plugins::new(options.plugins),
            ledger: Ledger::open(&options.uses),
            pruning: AtomicBool::new(false),
            events: broadcast::channel(EVENT_BACKLOG).0,
        })))
    }

    /// The volumes that are known here, by name. Plugins may have others ([`VolumeStore::list_all`]).
    pub fn list(&self) -> Vec<Arc<Volume>> {
        lock(&self.0.volumes).values().cloned().collect()
    }

    /// One volume, with the information that is stored here. Its plugin may know more
    /// ([`VolumeStore::look`]).
    ///
    /// # Errors
    /// [`VolumeError::NoSuchVolume`].
    pub fn inspect(&self, name: &str) -> Result<Arc<Volume>, VolumeError> {
        let found = self.0.known(name);
        found.ok_or_else(|| VolumeError::NoSuchVolume(name.to_owned()))
    }

    /// Holds a volume for a container that is known to have it.
    pub fn hold(&self, name: &str, container: &str) -> VolumeLease {
        let claim = Claim::One(name.to_owned());
        self.0.leases.take(claim, container.to_owned())
    }

    /// Holds every volume for a container whose volumes are unknown.
    pub fn hold_all(&self, container: &str) -> VolumeLease {
        self.0.leases.take(Claim::Any, container.to_owned())
    }

    /// The containers that hold a volume, oldest first.
    pub fn holders(&self, name: &str) -> Vec<String> {
        self.0.holders(name)
    }

    /// How many containers are known to hold a volume.
    pub fn references(&self, name: &str) -> usize {
        self.0.leases.known_holders(&name.to_owned()).len()
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<VolumeEvent> {
        self.0.events.subscribe()
    }
}

impl Inner {
    pub(crate) fn known(&self, name: &str) -> Option<Arc<Volume>> {
        lock(&self.volumes).get(name).cloned()
    }

    pub(crate) fn holders(&self, name: &str) -> Vec<String> {
        let mut holders: Vec<String> = Vec::new();
        for holder in self.leases.holders(&name.to_owned()) {
            if !holders.contains(&holder) {
                holders.push((*holder).clone());
            }
        }
        holders
    }

    /// Whether a container whose volumes are unknown may have a volume.
    pub(crate) fn may_be_held_unseen(&self, name: &str) -> bool {
        let known = self.leases.known_holders(&name.to_owned());
        let all = self.leases.holders(&name.to_owned());
        all.iter().any(|holder| !known.contains(holder))
    }

    pub(crate) fn emit(&self, action: VolumeAction, name: &str, driver: &str) {
        // There may be no subscribers.
        let _ = self.events.send(VolumeEvent {
            action,
            name: name.to_owned(),
            driver: driver.to_owned(),
            time: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        });
    }
}

/// Makes a volume from its document and its directory.
pub(crate) fn volume(document: VolumeDocument, directory: &Path) -> Volume {
    let mountpoint = match document.driver.as_str() {
        LOCAL => directory.join(DATA),
        // Its plugin returns the path when it is mounted.
        _ => PathBuf::new(),
    };
    Volume {
        name: document.name,
        driver: document.driver,
        created: document.created,
        options: document.options,
        labels: document.labels,
        mountpoint,
        reach: Reach::Local,
        status: None,
        unreadable: None,
    }
}

/// Makes the document of a volume.
fn read(objects: &Objects, directory: &str) -> Result<Volume, VolumeError> {
    let path = objects.directory(directory)?;
    let why = match document::read::<VolumeDocument>(&objects.document(directory)?) {
        Ok(Some(document)) if name::directory(&document.name) == directory => {
            return Ok(volume(document, &path));
        }
        Ok(Some(document)) => format!("its document is of volume {}", document.name),
        Ok(None) => "its document is missing".to_owned(),
        Err(error) => error.to_string(),
    };
    let name = name::of_directory(directory);
    tracing::error!(name, error = why, "volume can't be read");
    Ok(Volume {
        name,
        driver: LOCAL.to_owned(),
        created: Timestamp::UNIX_EPOCH,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        mountpoint: path.join(DATA),
        reach: Reach::Local,
        status: None,
        unreadable: Some(why),
    })
}

#[cfg(test)]
mod tests;
