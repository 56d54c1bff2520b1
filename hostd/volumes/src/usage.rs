//! Volumes of containers that run, and filling new ones.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::VolumeError;
use crate::mounted::{is_mounted, lock, mount, unmount};
use crate::options;
use crate::store::VolumeStore;
use crate::types::Volume;

/// A container's use of a volume, until [`VolumeUse::end`].
#[derive(Debug)]
pub struct VolumeUse {
    store: VolumeStore,
    volume: Arc<Volume>,
    container: String,
}

impl VolumeStore {
    /// Uses a volume for a container that starts. The first use mounts what its options ask for.
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
        let users = self.0.usage.of(name);
        let mut users = lock(&users);
        if let Some(wanted) = options::wanted(&volume.options)
            && !is_mounted(&volume.mountpoint)?
        {
            mount(&wanted, &volume.mountpoint)?;
        }
        users.insert(container.to_owned());
        Ok(self.in_use(volume, container))
    }

    /// Notes a use that began before this store was opened.
    ///
    /// # Errors
    /// There is no such volume.
    pub fn continue_use(&self, name: &str, container: &str) -> Result<VolumeUse, VolumeError> {
        let volume = self.inspect(name)?;
        lock(&self.0.usage.of(name)).insert(container.to_owned());
        Ok(self.in_use(volume, container))
    }

    fn in_use(&self, volume: Arc<Volume>, container: &str) -> VolumeUse {
        VolumeUse {
            store: self.clone(),
            volume,
            container: container.to_owned(),
        }
    }

    /// Unmounts what an earlier engine has mounted and nobody uses now.
    pub fn unmount_unused(&self) {
        for volume in self.list() {
            if !volume.is_mount() {
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
    }

    /// Fills a volume when it is empty. `copy` writes to the directory that it gets. As long as nobody
    /// uses the volume, it shows all that was copied or nothing.
    ///
    /// # Errors
    /// Those of `copy`, and of the disk.
    pub fn fill<E: From<VolumeError>>(
        &self,
        volume: &Volume,
        copy: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        // No use of it begins or ends meanwhile.
        let users = self.0.usage.of(&volume.name);
        let users = lock(&users);
        let data = &volume.mountpoint;
        let entries = fs::read_dir(data).map_err(VolumeError::io("read directory", data));
        if entries?.next().is_some() {
            return Ok(());
        }
        // The caller's own use is one.
        if users.len() > 1 || is_mounted(data)? {
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
        // Replaces an empty directory, or fails.
        fs::rename(&staging, data).map_err(VolumeError::io("rename", &staging))?;
        Ok(())
    }
}

impl VolumeUse {
    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Announces that the container has the volume at `destination`.
    pub fn announce(&self, destination: &str, writable: bool, propagation: &str) {
        self.store.0.emit(
            "mount",
            &self.volume.name,
            [
                ("container", self.container.clone()),
                ("destination", destination.to_owned()),
                ("driver", self.volume.driver.clone()),
                ("propagation", propagation.to_owned()),
                ("read/write", writable.to_string()),
            ],
        );
    }

    /// Ends the use. After the last one, what was mounted is unmounted.
    pub fn end(self) {
        self.end_silently();
        self.store.0.emit(
            "unmount",
            &self.volume.name,
            [
                ("container", self.container.clone()),
                ("driver", self.volume.driver.clone()),
            ],
        );
    }

    /// As [`VolumeUse::end`], of a use that was not announced.
    pub fn end_silently(&self) {
        let name = &self.volume.name;
        let users = self.store.0.usage.of(name);
        let mut users = lock(&users);
        users.remove(&self.container);
        if users.is_empty()
            && self.volume.is_mount()
            && let Err(error) = unmount(&self.volume.mountpoint)
        {
            tracing::warn!(name, %error, "volume not unmounted");
        }
    }
}
