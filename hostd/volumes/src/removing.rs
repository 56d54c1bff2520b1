//! Removing volumes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_store::objects::remove_tree;

use crate::VolumeError;
use crate::lock::lock;
use crate::mounted;
use crate::name;
use crate::names::Turn;
use crate::plugins::{Hurry, PluginError};
use crate::store::{Inner, VolumeStore};
use crate::types::{PrunedVolumes, Volume, VolumeAction};

/// Whether a volume that can't be removed is at least forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// A volume is kept if its plugin does not remove it.
    No,
    /// The volume is forgotten, whatever its plugin does.
    Yes,
}

/// Prevents a second prune while it exists.
struct Pruning<'a>(&'a AtomicBool);

impl<'a> Pruning<'a> {
    fn begin(pruning: &'a AtomicBool) -> Result<Self, VolumeError> {
        match pruning.swap(true, Ordering::AcqRel) {
            true => Err(VolumeError::Pruning),
            false => Ok(Self(pruning)),
        }
    }
}

impl Drop for Pruning<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl VolumeStore {
    /// Removes a volume with its content. Asks the plugin if the volume is not of this host's own
    /// driver.
    ///
    /// # Errors
    /// The volume does not exist, containers hold it, or its plugin fails.
    pub fn remove(&self, name: &str, force: Force) -> Result<(), VolumeError> {
        let trash = self.0.names.turn(name, |turn| {
            match self.0.known(name) {
                Some(known) if known.is_local() => return self.0.take_away(name),
                Some(known) => self.0.remove_from_plugin(turn, &known, force)?,
                None => {
                    turn.asks_a_plugin();
                    let driver = self.0.driver_of(name);
                    let driver =
                        driver.ok_or_else(|| VolumeError::NoSuchVolume(name.to_owned()))?;
                    self.0.ask_to_remove(&driver, name)?;
                    self.0.emit(VolumeAction::Destroy, name, &driver);
                }
            }
            Ok(None)
        })?;
        delete(name, trash);
        Ok(())
    }

    /// Removes the volumes of this host's own driver that nobody holds and that `wanted` chooses.
    /// Volumes with options are on another file system, and stay. `measure` returns the size of a
    /// volume in bytes.
    ///
    /// # Errors
    /// [`VolumeError::Pruning`].
    pub fn prune(
        &self,
        wanted: impl Fn(&Volume) -> bool,
        measure: impl Fn(&Volume) -> u64,
    ) -> Result<PrunedVolumes, VolumeError> {
        let _pruning = Pruning::begin(&self.0.pruning)?;
        let mut pruned = PrunedVolumes::default();
        for volume in self.list() {
            let held = self.0.leases.is_held(&volume.name);
            if held || !volume.is_prunable() || !wanted(&volume) {
                continue;
            }
            let bytes = measure(&volume);
            let taken = self
                .0
                .names
                .turn(&volume.name, |_| self.0.take_away(&volume.name));
            match taken {
                Ok(trash) => {
                    delete(&volume.name, trash);
                    pruned.bytes += bytes;
                    pruned.names.push(volume.name.clone());
                }
                // It was used or removed meanwhile.
                Err(VolumeError::InUse { .. } | VolumeError::NoSuchVolume(_)) => {}
                Err(error) => tracing::warn!(name = volume.name, %error, "volume not removed"),
            }
        }
        let reclaimed = pruned.bytes;
        self.0.emit(VolumeAction::Prune { reclaimed }, "", "");
        Ok(pruned)
    }
}

impl Inner {
    fn require_unheld(&self, name: &str) -> Result<(), VolumeError> {
        match self.leases.is_held(&name.to_owned()) {
            true => Err(VolumeError::InUse {
                name: name.to_owned(),
                holders: self.holders(name),
            }),
            false => Ok(()),
        }
    }

    /// Removes a volume that nobody holds, and returns the directory whose files are still to be
    /// deleted.
    fn take_away(&self, name: &str) -> Result<Option<PathBuf>, VolumeError> {
        let mut volumes = lock(&self.volumes);
        // The volume of that name may meanwhile belong to a plugin.
        let volume = volumes
            .get(name)
            .filter(|volume| volume.is_local())
            .cloned();
        let volume = volume.ok_or_else(|| VolumeError::NoSuchVolume(name.to_owned()))?;
        self.require_unheld(name)?;
        // Do not delete files through a mount that an earlier engine has left.
        mounted::unmount(&volume.mountpoint)?;
        let trash = self.objects.discard(&name::directory(name))?;
        volumes.remove(name);
        drop(volumes);
        self.usage.forget(name);
        self.emit(VolumeAction::Destroy, name, &volume.driver);
        Ok(trash)
    }

    fn remove_from_plugin(
        &self,
        turn: &Turn<'_>,
        known: &Volume,
        force: Force,
    ) -> Result<(), VolumeError> {
        self.require_unheld(&known.name)?;
        turn.asks_a_plugin();
        let removed = self.ask_to_remove(&known.driver, &known.name);
        match removed {
            Ok(()) => {}
            Err(VolumeError::NoSuchVolume(_)) => {
                self.forget(&known.name)?;
                return removed;
            }
            Err(error) if force == Force::Yes => {
                tracing::warn!(name = known.name, %error, "volume forgotten, but not removed");
            }
            Err(_) => return removed,
        }
        self.forget(&known.name)?;
        self.usage.forget(&known.name);
        self.emit(VolumeAction::Destroy, &known.name, &known.driver);
        Ok(())
    }

    fn ask_to_remove(&self, driver: &str, name: &str) -> Result<(), VolumeError> {
        let ask = || {
            let plugin = self.plugins.find(driver)?;
            let _place = plugin.enter()?;
            match plugin.get(name, Hurry::No)? {
                Some(_) => plugin.remove(name).map(|()| true),
                None => Ok::<_, PluginError>(false),
            }
        };
        match ask().map_err(VolumeError::driver("remove", name))? {
            true => Ok(()),
            false => Err(VolumeError::NoSuchVolume(name.to_owned())),
        }
    }

    /// Forgets a plugin's volume.
    pub(crate) fn forget(&self, name: &str) -> Result<(), VolumeError> {
        let trash = self.objects.discard(&name::directory(name))?;
        lock(&self.volumes).remove(name);
        delete(name, trash);
        Ok(())
    }
}

/// Deletes the files of a removed volume.
pub(crate) fn delete(name: &str, trash: Option<PathBuf>) {
    if let Some(trash) = trash
        && let Err(error) = remove_tree(&trash)
    {
        tracing::warn!(name, %error, "files of a removed volume not deleted");
    }
}
