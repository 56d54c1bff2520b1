//! The requests to a plugin, in the protocol's JSON.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::address::Address;
use super::call::call;
use super::error::{CallError, PluginError};
use super::limits::{GLANCE, LONG, LONGEST_PATH, MOST_ALL, MOST_EACH, SHORT, SILENCE};
use crate::lock::lock;
use crate::types::Reach;

/// A volume as its plugin describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// Empty: it is not mounted.
    pub(crate) mountpoint: PathBuf,
    pub(crate) created: Option<Timestamp>,
    /// A JSON object as text.
    pub(crate) status: Option<Box<str>>,
}

/// The number of running requests.
pub(super) type Count = Arc<AtomicUsize>;

/// A running request's place, while it exists.
#[derive(Debug)]
pub(crate) struct Place([Count; 2]);

impl Drop for Place {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A plugin whose address was found.
#[derive(Debug)]
pub(crate) struct Plugin {
    name: String,
    address: Address,
    facts: Mutex<Facts>,
    waiting: Count,
    waiting_for_all: Count,
}

/// Its message.
#[derive(Debug, Clone, Copy, Default)]
struct Facts {
    keeps_volumes: Option<bool>,
    reach: Option<Reach>,
    silent_since: Option<Instant>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    name: &'a str,
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<&'a BTreeMap<String, String>>,
}

/// All members that an answer may have.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Reply {
    err: Option<String>,
    implements: Option<Vec<String>>,
    mountpoint: Option<String>,
    volume: Option<Told>,
    volumes: Option<Vec<Option<Told>>>,
    capabilities: Option<Capabilities>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Told {
    name: String,
    mountpoint: Option<String>,
    created_at: Option<String>,
    status: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Capabilities {
    scope: String,
}

impl Plugin {
    /// `all` counts the requests to all plugins.
    pub(super) fn new(name: &str, address: Address, all: &Count) -> Self {
        Self {
            name: name.to_owned(),
            address,
            facts: Mutex::default(),
            waiting: Count::default(),
            waiting_for_all: Arc::clone(all),
        }
    }

    pub(super) fn is_at(&self, address: &Address) -> bool {
        self.address == *address
    }

    /// Takes a place for a request that may take long. Take it before waiting for anything.
    ///
    /// # Errors
    /// [`PluginError::Busy`].
    pub(crate) fn enter(&self) -> Result<Place, PluginError> {
        let place = Place([&self.waiting, &self.waiting_for_all].map(|count| {
            count.fetch_add(1, Ordering::AcqRel);
            Arc::clone(count)
        }));
        let [each, all] = &place.0;
        match each.load(Ordering::Acquire) > MOST_EACH || all.load(Ordering::Acquire) > MOST_ALL {
            true => Err(PluginError::busy(&self.name)),
            false => Ok(place),
        }
    }

    /// Activates the plugin, and makes sure that it keeps volumes.
    pub(super) fn activate(&self, limit: Duration) -> Result<(), PluginError> {
        let known = lock(&self.facts).keeps_volumes;
        let keeps = match known {
            Some(keeps) => keeps,
            None => {
                let reply = self.ask("Plugin.Activate", None, limit)?;
                let all = reply.implements.unwrap_or_default();
                let keeps = all.iter().any(|one| one == "VolumeDriver");
                lock(&self.facts).keeps_volumes = Some(keeps);
                keeps
            }
        };
        match keeps {
            true => Ok(()),
            false => Err(PluginError::NoVolumes {
                name: self.name.clone(),
            }),
        }
    }

    /// Sends a request, unless the plugin was silent a moment ago. Records whether it is silent
    /// now.
    pub(super) fn unless_silent<T>(
        &self,
        ask: impl FnOnce() -> Result<T, PluginError>,
    ) -> Result<T, PluginError> {
        let since = lock(&self.facts).silent_since;
        if since.is_some_and(|since| since.elapsed() < SILENCE) {
            return Err(PluginError::Silent {
                name: self.name.clone(),
            });
        }
        ask().inspect_err(|error| {
            if error.is_silence() {
                lock(&self.facts).silent_since = Some(Instant::now());
            }
        })
    }

    /// Makes a volume.
    pub(crate) fn create(
        &self,
        name: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<(), PluginError> {
        let named = Named {
            opts: Some(options),
            ..Named::of(name)
        };
        self.ask("VolumeDriver.Create", Some(named), LONG).map(drop)
    }

    /// Removes a volume.
    pub(crate) fn remove(&self, name: &str) -> Result<(), PluginError> {
        self.ask("VolumeDriver.Remove", Some(Named::of(name)), LONG)
            .map(drop)
    }

    /// Mounts a volume for a user, and returns where.
    pub(crate) fn mount(&self, name: &str, user: &str) -> Result<PathBuf, PluginError> {
        const METHOD: &str = "VolumeDriver.Mount";
        let named = Named {
            id: Some(user),
            ..Named::of(name)
        };
        let reply = self.ask(METHOD, Some(named), LONG)?;
        let path = reply.mountpoint.unwrap_or_default();
        match directory(&path) {
            Some(path) => Ok(path),
            None => {
                // Without a path the mount is useless.
                let _ = self.unmount(name, user);
                let shown: String = path.chars().take(256).collect();
                let reason = format!("{shown:?} is not the absolute path of a directory");
                Err(self.failed(METHOD, CallError::Malformed(reason)))
            }
        }
    }

    /// Ends a user's use of a volume.
    pub(crate) fn unmount(&self, name: &str, user: &str) -> Result<(), PluginError> {
        let named = Named {
            id: Some(user),
            ..Named::of(name)
        };
        self.ask("VolumeDriver.Unmount", Some(named), LONG)
            .map(drop)
    }

    /// Where a volume is mounted, if it is.
    pub(crate) fn path(&self, name: &str) -> Result<Option<PathBuf>, PluginError> {
        let reply = self.ask("VolumeDriver.Path", Some(Named::of(name)), SHORT)?;
        Ok(directory(&reply.mountpoint.unwrap_or_default()))
    }

    /// A volume; `None` if the plugin answers that it does not have it.
    pub(crate) fn get(&self, name: &str, hurry: Hurry) -> Result<Option<Found>, PluginError> {
        let reply = self.ask("VolumeDriver.Get", Some(Named::of(name)), hurry.limit());
        match reply {
            Ok(reply) => Ok(reply.volume.map(|told| Found {
                // Some plugins leave it out.
                name: name.to_owned(),
                ..Found::from(told)
            })),
            Err(PluginError::Refused(reason)) => {
                tracing::debug!(plugin = self.name, name, reason, "volume not found");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// All its volumes.
    pub(crate) fn list(&self) -> Result<Vec<Found>, PluginError> {
        let reply = self.ask("VolumeDriver.List", None, GLANCE)?;
        let all = reply.volumes.into_iter().flatten().flatten();
        Ok(all
            .filter(|told| !told.name.is_empty())
            .map(Found::from)
            .collect())
    }

    /// The scope of its volumes.
    pub(crate) fn reach(&self, hurry: Hurry) -> Reach {
        if let Some(reach) = lock(&self.facts).reach {
            return reach;
        }
        let reach = match self.ask("VolumeDriver.Capabilities", None, hurry.limit()) {
            Ok(reply) => match reply.capabilities.unwrap_or_default().scope.as_str() {
                scope if scope.eq_ignore_ascii_case("global") => Reach::Global,
                _ => Reach::Local,
            },
            // Old plugins don't know this request.
            Err(PluginError::Refused(_)) => Reach::Local,
            Err(error) => {
                tracing::warn!(plugin = self.name, %error, "capabilities not found out");
                return Reach::Local;
            }
        };
        lock(&self.facts).reach = Some(reach);
        reach
    }

    fn failed(&self, method: &'static str, source: CallError) -> PluginError {
        PluginError::Call {
            name: self.name.clone(),
            address: self.address.to_string(),
            method,
            source,
        }
    }

    /// One request.
    fn ask(
        &self,
        method: &'static str,
        of: Option<Named<'_>>,
        limit: Duration,
    ) -> Result<Reply, PluginError> {
        let malformed =
            |error: serde_json::Error| self.failed(method, CallError::Malformed(error.to_string()));
        let body = match of {
            Some(named) => serde_json::to_vec(&named).map_err(malformed)?,
            None => b"{}".to_vec(),
        };
        let answer = call(&self.address, method, &body, limit)
            .map_err(|error| self.failed(method, error))?;
        lock(&self.facts).silent_since = None;
        let reply = serde_json::from_slice::<Reply>(&answer.body);
        if answer.status != 200 {
            let said = reply.ok().and_then(|reply| reply.err);
            let said = said.filter(|said| !said.is_empty());
            let said = said.unwrap_or_else(|| shortened(&answer.body));
            return Err(PluginError::Refused(format!("{method}: {said}")));
        }
        let reply = reply.map_err(malformed)?;
        match reply.err.filter(|said| !said.is_empty()) {
            Some(said) => Err(PluginError::Refused(shortened(said.as_bytes()))),
            None => Ok(Reply { err: None, ..reply }),
        }
    }
}

/// How long a client waits for a read-only request to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// The client asked for this plugin.
    No,
    /// The client asked for something else, or for all plugins.
    Yes,
}

impl Hurry {
    fn limit(self) -> Duration {
        match self {
            Self::No => SHORT,
            Self::Yes => GLANCE,
        }
    }
}

impl<'a> Named<'a> {
    fn of(name: &'a str) -> Self {
        Self {
            name,
            id: None,
            opts: None,
        }
    }
}

impl From<Told> for Found {
    fn from(told: Told) -> Self {
        let status = told.status.filter(|status| !status.is_empty());
        Self {
            name: told.name,
            mountpoint: directory(&told.mountpoint.unwrap_or_default()).unwrap_or_default(),
            created: told.created_at.and_then(|text| text.parse().ok()),
            status: status.map(|status| Value::Object(status).to_string().into()),
        }
    }
}

/// Whether a path may be that of a directory on the host.
fn directory(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    let plain = path.is_absolute()
        && text.len() <= LONGEST_PATH
        && !text.contains('\0')
        && path.components().all(|part| part != Component::ParentDir);
    plain.then_some(path)
}

/// A plugin's message, cut to a length that a client can read.
fn shortened(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    text.trim().chars().take(4096).collect()
}
