//! Volumes as their plugins know them. Each call may take as long as a plugin may.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::VolumeError;
use crate::plugins::{Found, Hurry};
use crate::store::{Inner, VolumeStore};
use crate::types::{LOCAL, Reach, Volume};

impl VolumeStore {
    /// All volumes, including those of plugins, by name, and the errors of plugins that did not
    /// answer. The volumes of these are listed as far as they are known here.
    pub fn list_all(&self) -> (Vec<Arc<Volume>>, Vec<String>) {
        let (mut silent, mut warnings) = (BTreeSet::new(), Vec::new());
        let mut answered = BTreeSet::new();
        let mut told = Vec::new();
        let answers = self.0.plugins.ask_all(|plugin| {
            let all = plugin.list()?;
            Ok((all, plugin.reach(Hurry::Yes)))
        });
        for (driver, answer) in answers {
            match answer {
                Ok((all, reach)) => {
                    told.extend(all.into_iter().map(|found| (driver.clone(), found, reach)));
                    answered.insert(driver);
                }
                Err(error) => {
                    warnings.push(format!("list {driver}: {error}"));
                    silent.insert(driver);
                }
            }
        }
        // Read the list now, so that a volume created meanwhile is known.
        let known = self.list();
        let mut all: BTreeMap<String, Arc<Volume>> = known
            .iter()
            .filter(|volume| !answered.contains(&volume.driver))
            .map(|volume| (volume.name.clone(), Arc::clone(volume)))
            .collect();
        for (driver, found, reach) in told {
            let of_name = self.0.known(&found.name);
            if of_name.as_ref().is_some_and(|known| known.driver != driver) {
                tracing::warn!(
                    name = found.name,
                    driver,
                    "the name is another driver's; this volume is not listed"
                );
                continue;
            }
            let volume = as_told(of_name.as_deref(), &driver, found, reach);
            all.entry(volume.name.clone())
                .or_insert_with(|| Arc::new(volume));
        }
        (all.into_values().collect(), warnings)
    }

    /// One volume, with its plugin's information.
    ///
    /// # Errors
    /// [`VolumeError::NoSuchVolume`], or its plugin does not answer.
    pub fn look(&self, name: &str) -> Result<Arc<Volume>, VolumeError> {
        let known = self.0.known(name);
        if let Some(known) = &known
            && known.is_local()
        {
            return Ok(Arc::clone(known));
        }
        let gone = || VolumeError::NoSuchVolume(name.to_owned());
        let driver = match &known {
            Some(known) => known.driver.clone(),
            None => self.0.driver_of(name).ok_or_else(gone)?,
        };
        let asked = self.0.plugins.find(&driver).and_then(|plugin| {
            let _place = plugin.enter()?;
            let found = plugin.get(name, Hurry::No)?;
            let found = found.map(|found| match found.mountpoint.as_os_str().is_empty() {
                false => found,
                // Some plugins return it only for a single volume.
                true => Found {
                    mountpoint: plugin.path(name).ok().flatten().unwrap_or_default(),
                    ..found
                },
            });
            Ok(found.map(|found| (found, plugin.reach(Hurry::No))))
        });
        let (found, reach) = asked
            .map_err(VolumeError::driver("get", name))?
            .ok_or_else(gone)?;
        Ok(Arc::new(as_told(known.as_deref(), &driver, found, reach)))
    }

    /// The names of all drivers that answer, sorted.
    pub fn drivers(&self) -> Vec<String> {
        let mut names = self.0.plugins.names();
        names.push(LOCAL.to_owned());
        names.sort_unstable();
        names
    }

    /// The path of a volume's files for one of its users, without asking its plugin.
    ///
    /// # Errors
    /// There is no such volume.
    pub fn directory(&self, name: &str, user: &str) -> Result<Option<PathBuf>, VolumeError> {
        let known = self.inspect(name)?;
        Ok(match known.is_local() {
            true => Some(known.mountpoint.clone()),
            false => self.0.ledger.get(name, user).and_then(|record| record.path),
        })
    }
}

impl Inner {
    /// Finds the plugin of a volume that is not known here.
    pub(crate) fn driver_of(&self, name: &str) -> Option<String> {
        let answers = self.plugins.ask_all(|plugin| plugin.get(name, Hurry::Yes));
        answers
            .into_iter()
            .find(|(_, answer)| matches!(answer, Ok(Some(_))))
            .map(|(driver, _)| driver)
    }
}

fn as_told(known: Option<&Volume>, driver: &str, found: Found, reach: Reach) -> Volume {
    let created = known.map(|known| known.created);
    Volume {
        name: found.name,
        driver: driver.to_owned(),
        created: found.created.or(created).unwrap_or(Timestamp::UNIX_EPOCH),
        options: known.map(|known| known.options.clone()).unwrap_or_default(),
        labels: known.map(|known| known.labels.clone()).unwrap_or_default(),
        mountpoint: found.mountpoint,
        reach,
        status: found.status,
        unreadable: None,
    }
}
