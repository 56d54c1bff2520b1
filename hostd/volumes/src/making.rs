//! Creates volumes, or finds existing ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use keelson_store::{Durability, document};

use crate::VolumeError;
use crate::document::{DATA, VolumeDocument};
use crate::lock::lock;
use crate::name;
use crate::names::Turn;
use crate::options;
use crate::plugins::Hurry;
use crate::removing::delete;
use crate::store::{Inner, VolumeStore, volume};
use crate::types::{LOCAL, NewVolume, Volume, VolumeAction, VolumeLease};
use crate::unfit::Unfit;

impl VolumeStore {
    /// Creates a volume, or finds the existing one of that name, whose options and labels are not
    /// changed. Asks a plugin if it is the driver, or if no driver is given and there are plugins.
    ///
    /// # Errors
    /// The name, the driver or an option is invalid, a volume of another driver has the
    /// name, or the disk or the plugin fails.
    pub fn create(&self, new: NewVolume) -> Result<Arc<Volume>, VolumeError> {
        let new = named(new);
        let name = new.name.clone();
        self.0.names.turn(&name, |turn| {
            let (volume, _) = self.0.find_or_make(turn, new)?;
            Ok(volume)
        })
    }

    /// Like [`VolumeStore::create`], and holds the volume for a container. Also returns whether it
    /// was created.
    ///
    /// # Errors
    /// As for [`VolumeStore::create`], and a volume that can't be read.
    pub fn create_held(
        &self,
        new: NewVolume,
        container: &str,
    ) -> Result<(Arc<Volume>, VolumeLease, bool), VolumeError> {
        let new = named(new);
        let name = new.name.clone();
        // Nobody can remove it before it is held.
        self.0.names.turn(&name, |turn| {
            let (volume, made) = self.0.find_or_make(turn, new)?;
            if let Some(reason) = &volume.unreadable {
                return Err(VolumeError::Unreadable {
                    name: volume.name.clone(),
                    reason: reason.clone(),
                });
            }
            let lease = self.hold(&volume.name, container);
            Ok((volume, lease, made))
        })
    }
}

/// A volume without a name gets one, and the label of anonymous volumes.
fn named(mut new: NewVolume) -> NewVolume {
    if new.name.is_empty() {
        new.name = name::generate();
        new.labels.insert(name::ANONYMOUS.to_owned(), String::new());
        if new.driver.is_empty() {
            LOCAL.clone_into(&mut new.driver);
        }
    }
    new
}

impl Inner {
    /// Also returns whether it was created.
    fn find_or_make(
        &self,
        turn: &Turn<'_>,
        new: NewVolume,
    ) -> Result<(Arc<Volume>, bool), VolumeError> {
        if let Some(known) = self.known(&new.name)
            && self.is_still_there(turn, &known, &new.driver)?
        {
            return Ok((known, false));
        }
        match new.driver.as_str() {
            "" => match self.find_in_plugins(turn, &new.name)? {
                Some(found) => Ok((found, false)),
                None => Ok((self.make_local(new)?, true)),
            },
            LOCAL => Ok((self.make_local(new)?, true)),
            _ => self.find_or_make_in_plugin(turn, new),
        }
    }

    /// Whether a known volume still exists, with the wanted driver. Forgets a volume that its
    /// plugin does not know any more.
    fn is_still_there(
        &self,
        turn: &Turn<'_>,
        known: &Volume,
        wanted: &str,
    ) -> Result<bool, VolumeError> {
        let name = &known.name;
        let is_other = !wanted.is_empty() && wanted != known.driver;
        if is_other && wanted != LOCAL {
            turn.asks_a_plugin();
            let found = self.plugins.find(wanted);
            found.map_err(VolumeError::driver("create", name))?;
        }
        let taken = |reason: String| {
            Err(VolumeError::Taken {
                name: name.clone(),
                reason,
            })
        };
        if !known.is_local() {
            turn.asks_a_plugin();
            let found = self.plugins.find(&known.driver).and_then(|plugin| {
                let _place = plugin.enter()?;
                plugin.get(name, Hurry::No)
            });
            match found {
                Err(error) => {
                    return taken(format!(
                        "found reference to volume '{name}' in driver '{}', but got an error while checking the driver: {error}",
                        known.driver
                    ));
                }
                Ok(None) if self.leases.is_held(name) => {
                    return taken(format!(
                        "found references to volume '{name}' in driver '{}' but the volume was not found in the driver -- you may need to remove containers referencing this volume or force remove the volume to re-create it",
                        known.driver
                    ));
                }
                Ok(None) => {
                    self.forget(name)?;
                    return Ok(false);
                }
                Ok(Some(_)) => {}
            }
        }
        match is_other {
            true => taken(format!(
                "driver '{}' already has volume '{name}'",
                known.driver
            )),
            false => Ok(true),
        }
    }

    /// Finds a plugin's volume that was not created through this store.
    fn find_in_plugins(
        &self,
        turn: &Turn<'_>,
        name: &str,
    ) -> Result<Option<Arc<Volume>>, VolumeError> {
        turn.asks_a_plugin();
        match self.driver_of(name) {
            None => Ok(None),
            Some(driver) => {
                let new = NewVolume {
                    name: name.to_owned(),
                    driver,
                    ..NewVolume::default()
                };
                self.keep(new).map(Some)
            }
        }
    }

    fn find_or_make_in_plugin(
        &self,
        turn: &Turn<'_>,
        new: NewVolume,
    ) -> Result<(Arc<Volume>, bool), VolumeError> {
        check(&new, name::check_foreign)?;
        turn.asks_a_plugin();
        let failed = |error| VolumeError::driver("create", &new.name)(error);
        let plugin = self.plugins.find(&new.driver).map_err(failed)?;
        let _place = plugin.enter().map_err(failed)?;
        let found = plugin.get(&new.name, Hurry::No).map_err(failed)?;
        if found.is_none() {
            plugin.create(&new.name, &new.options).map_err(failed)?;
        }
        let name = new.name.clone();
        match self.keep(new) {
            Ok(volume) if found.is_none() => {
                self.emit(VolumeAction::Create, &name, &volume.driver);
                Ok((volume, true))
            }
            Ok(volume) => Ok((volume, false)),
            Err(error) => {
                if found.is_none()
                    && let Err(error) = plugin.remove(&name)
                {
                    tracing::warn!(name, %error, "volume not removed again");
                }
                Err(error)
            }
        }
    }

    fn make_local(&self, new: NewVolume) -> Result<Arc<Volume>, VolumeError> {
        check(&new, name::check)?;
        check(&new, |_| options::check(&new.options))?;
        let new = NewVolume {
            driver: LOCAL.to_owned(),
            ..new
        };
        let volume = self.keep(new)?;
        self.emit(VolumeAction::Create, &volume.name, LOCAL);
        Ok(volume)
    }

    /// Adds a volume. An error leaves nothing of it.
    fn keep(&self, new: NewVolume) -> Result<Arc<Volume>, VolumeError> {
        let document = VolumeDocument {
            name: new.name,
            driver: new.driver,
            created: Timestamp::now(),
            options: new.options,
            labels: new.labels,
            rest: document::Rest::default(),
        };
        let directory = name::directory(&document.name);
        let path = match self.write(&document, &directory) {
            Ok(path) => path,
            Err(error) => {
                if let Ok(trash) = self.objects.discard(&directory) {
                    delete(&document.name, trash);
                }
                return Err(error);
            }
        };
        let volume = Arc::new(volume(document, &path));
        lock(&self.volumes).insert(volume.name.clone(), Arc::clone(&volume));
        Ok(volume)
    }

    /// Creates a volume's directory. The volume exists once its document does.
    fn write(&self, document: &VolumeDocument, name: &str) -> Result<PathBuf, VolumeError> {
        let directory = self.objects.prepare(name)?;
        let set_mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(VolumeError::io("chmod", path))
        };
        if document.driver == LOCAL {
            let data = directory.join(DATA);
            fs::create_dir(&data).map_err(VolumeError::io("mkdir", &data))?;
            // Containers may have any users, so hostd's umask must not matter.
            set_mode(&data, 0o755)?;
        }
        set_mode(&directory, 0o711)?;
        let path = self.objects.document(name)?;
        document::write(&path, document, self.era, Durability::Flushed)?;
        self.objects.settle(name);
        Ok(directory)
    }
}

fn check(new: &NewVolume, fits: impl FnOnce(&str) -> Result<(), Unfit>) -> Result<(), VolumeError> {
    fits(&new.name).map_err(|unfit| VolumeError::Invalid {
        name: new.name.clone(),
        reason: unfit.to_string(),
    })
}
