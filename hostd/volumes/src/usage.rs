//! The volumes of running containers, and the filling of new ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_store::document::Rest;

use crate::VolumeError;
use crate::ledger::Record;
use crate::lock::lock;
use crate::mounted::{is_mounted, mount, unmount};
use crate::options;
use crate::plugins::{Plugin, PluginError};
use crate::store::{Inner, VolumeStore};
use crate::types::{Volume, VolumeAction};

/// A container's use of a volume, until [`VolumeUse::end`].
#[derive(Debug)]
pub struct VolumeUse {
    store: VolumeStore,
    volume: Arc<Volume>,
    container: String,
    directory: PathBuf,
}

impl VolumeStore {
    /// Uses a volume for a container that starts. The first use makes the mount of its options. A
    /// plugin is asked to mount for each container.
    ///
    /// # Errors
    /// There is no such volume, or it can't be mounted.
    pub fn begin_use(&self, name: &str, container: &str) -> Result<VolumeUse, VolumeError> {
        let volume = self.inspect(name)?;
        if let Some(reason) = &volume.unreadable {
            return Err(VolumeError::Unreadable {
                name: name.to_owned(),
                reason: reason.clone(),
            });
        }
        let directory = match volume.is_local() {
            true => self.0.use_local(&volume, container)?,
            false => self.0.use_plugins(&volume, container)?,
        };
        Ok(self.in_use(volume, container, directory))
    }

    /// Records a use that began before this store was opened. No plugin is asked.
    ///
    /// # Errors
    /// There is no such volume.
    pub fn continue_use(&self, name: &str, container: &str) -> Result<VolumeUse, VolumeError> {
        let volume = self.inspect(name)?;
        let directory = self.directory(name, container)?.unwrap_or_default();
        lock(&self.0.usage.of(name)).insert(container.to_owned());
        Ok(self.in_use(volume, container, directory))
    }

    fn in_use(&self, volume: Arc<Volume>, container: &str, directory: PathBuf) -> VolumeUse {
        VolumeUse {
            store: self.clone(),
            volume,
            container: container.to_owned(),
            directory,
        }
    }

    /// Unmounts volumes that an earlier engine mounted and that nobody uses now. Plugins are asked
    /// in the background.
    pub fn unmount_unused(&self) {
        for volume in self.list() {
            if !volume.is_local() || !volume.is_mount() {
                continue;
            }
            let users = self.0.usage.of(&volume.name);
            let users = lock(&users);
            if users.is_empty()
                && let Err(error) = unmount(&volume.mountpoint)
            {
                tracing::warn!(name = volume.name, %error, "volume not unmounted");
            }
        }
        let left = self.0.ledger.all();
        let left: Vec<Record> = left
            .into_iter()
            .filter(|record| !lock(&self.0.usage.of(&record.volume)).contains(&record.user))
            // An unreadable container may be running with any volume.
            .filter(|record| !self.0.may_be_held_unseen(&record.volume))
            .collect();
        if left.is_empty() {
            return;
        }
        let store = self.clone();
        let work = move || {
            for record in left {
                store.0.unmount_left(&record);
            }
        };
        let thread = std::thread::Builder::new().name("volumes-left".to_owned());
        if let Err(error) = thread.spawn(work) {
            tracing::warn!(%error, "volumes of plugins not unmounted");
        }
    }

    /// Fills an empty volume for a container that uses it. `copy` writes to the given directory. As
    /// long as nobody else uses the volume, it shows all copied files or none. This does not hold
    /// for mounted volumes.
    ///
    /// # Errors
    /// The errors of `copy`, and of the disk.
    pub fn fill<E: From<VolumeError>>(
        &self,
        used: &VolumeUse,
        copy: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let volume = &used.volume;
        // No use of the volume begins or ends meanwhile.
        let users = self.0.usage.of(&volume.name);
        let users = lock(&users);
        let data = &used.directory;
        let entries = fs::read_dir(data).map_err(VolumeError::io("read directory", data));
        if entries?.next().is_some() {
            return Ok(());
        }
        // One of the uses is the caller's own.
        if users.len() > 1 || !volume.is_local() || is_mounted(data)? {
            return copy(data);
        }
        let staging = data.with_file_name(".new-data");
        let remove = || keelson_store::objects::remove_tree(&staging).map_err(VolumeError::from);
        remove()?;
        fs::create_dir(&staging).map_err(VolumeError::io("mkdir", &staging))?;
        if let Err(error) = copy(&staging) {
            remove()?;
            return Err(error);
        }
        // The rename replaces an empty directory, or fails.
        fs::rename(&staging, data).map_err(VolumeError::io("rename", &staging))?;
        Ok(())
    }
}

impl Inner {
    fn use_local(&self, volume: &Volume, container: &str) -> Result<PathBuf, VolumeError> {
        let users = self.usage.of(&volume.name);
        let mut users = lock(&users);
        if let Some(wanted) = options::wanted(&volume.options)
            && !is_mounted(&volume.mountpoint)?
        {
            mount(&wanted, &volume.mountpoint)?;
        }
        users.insert(container.to_owned());
        Ok(volume.mountpoint.clone())
    }

    fn use_plugins(&self, volume: &Volume, container: &str) -> Result<PathBuf, VolumeError> {
        let name = &volume.name;
        let not_mounted = |source| VolumeError::NotMounted {
            name: name.clone(),
            source: Box::new(source),
        };
        let plugin = self.plugins.find_soon(&volume.driver);
        let plugin = plugin.map_err(not_mounted)?;
        let _place = plugin.enter().map_err(not_mounted)?;
        let users = self.usage.of(name);
        let mut users = lock(&users);
        let earlier = self.ledger.get(name, container);
        if users.contains(container)
            && let Some(path) = earlier.as_ref().and_then(|record| record.path.clone())
        {
            // The container has the volume at several paths.
            return Ok(path);
        }
        if earlier.is_some() {
            // An earlier engine was killed, or the plugin did not answer in time. A plugin that
            // counts uses has counted this one.
            let ended = plugin.unmount(name, container);
            ended.map_err(not_mounted)?;
            self.ledger.forget(name, container);
        }
        let path = self.mount_in(&plugin, volume, container)?;
        users.insert(container.to_owned());
        Ok(path)
    }

    fn mount_in(
        &self,
        plugin: &Plugin,
        volume: &Volume,
        container: &str,
    ) -> Result<PathBuf, VolumeError> {
        let name = &volume.name;
        let mut record = Record {
            rest: Rest::default(),
            volume: name.clone(),
            user: container.to_owned(),
            driver: volume.driver.clone(),
            path: None,
        };
        self.ledger.write(record.clone())?;
        match plugin.mount(name, container) {
            Ok(path) => {
                record.path = Some(path.clone());
                if let Err(error) = self.ledger.write(record) {
                    self.end_in(plugin, name, container);
                    return Err(error);
                }
                Ok(path)
            }
            Err(source) => {
                if !source.may_be_done() {
                    self.ledger.forget(name, container);
                }
                Err(VolumeError::NotMounted {
                    name: name.clone(),
                    source: Box::new(source),
                })
            }
        }
    }

    /// Asks a plugin to unmount. If it fails, that is repeated at the next start of hostd or of the
    /// container.
    fn end_in(&self, plugin: &Plugin, name: &str, user: &str) {
        match plugin.unmount(name, user) {
            Ok(()) => self.ledger.forget(name, user),
            // Plugins have no common text for a volume that they do not know any more.
            Err(error @ PluginError::Refused(_)) => {
                tracing::warn!(name, user, %error, "volume not unmounted");
                self.ledger.forget(name, user);
            }
            Err(error) => tracing::warn!(name, user, %error, "volume not unmounted"),
        }
    }

    /// Unmounts the mounts of an earlier engine.
    fn unmount_left(&self, record: &Record) {
        let found = self.plugins.find_soon(&record.driver);
        let entered = found.and_then(|plugin| Ok((plugin.enter()?, plugin)));
        let (_place, plugin) = match entered {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(name = record.volume, %error, "volume not unmounted");
                return;
            }
        };
        let users = self.usage.of(&record.volume);
        let users = lock(&users);
        // A container may have been started meanwhile.
        if !users.contains(&record.user) && self.ledger.get(&record.volume, &record.user).is_some()
        {
            self.end_in(&plugin, &record.volume, &record.user);
        }
    }

    /// Ends a container's use of a volume. After the last use, the volume is unmounted.
    fn end_use(&self, volume: &Volume, container: &str) {
        let name = &volume.name;
        if volume.is_local() {
            let users = self.usage.of(name);
            let mut users = lock(&users);
            users.remove(container);
            if users.is_empty()
                && volume.is_mount()
                && let Err(error) = unmount(&volume.mountpoint)
            {
                tracing::warn!(name, %error, "volume not unmounted");
            }
            return;
        }
        // The plugin may be gone by now.
        let found = self.plugins.find(&volume.driver);
        let entered = found.and_then(|plugin| Ok((plugin.enter()?, plugin)));
        let users = self.usage.of(name);
        let mut users = lock(&users);
        if !users.remove(container) {
            // The container had the volume at several paths.
            return;
        }
        match entered {
            Ok((_place, plugin)) => self.end_in(&plugin, name, container),
            Err(error) => tracing::warn!(name, container, %error, "volume not unmounted"),
        }
    }
}

impl VolumeUse {
    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Whether it is a directory of this host's own driver, so that the engine decides about the
    /// owners of its files.
    pub fn is_own(&self) -> bool {
        !self.volume.is_mount()
    }

    /// The path of its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Announces that the container has the volume at `destination`.
    pub fn announce(&self, destination: &str, writable: bool, propagation: &str) {
        self.emit(VolumeAction::Mount {
            container: self.container.clone(),
            destination: destination.to_owned(),
            writable,
            propagation: propagation.to_owned(),
        });
    }

    /// Ends the use. After the last use, the volume is unmounted.
    pub fn end(self) {
        self.end_silently();
        self.emit(VolumeAction::Unmount {
            container: self.container.clone(),
        });
    }

    fn emit(&self, action: VolumeAction) {
        let (name, driver) = (&self.volume.name, &self.volume.driver);
        self.store.0.emit(action, name, driver);
    }

    /// Like [`VolumeUse::end`], for a use that was not announced.
    pub fn end_silently(&self) {
        self.store.0.end_use(&self.volume, &self.container);
    }
}
