//! Volume plugins: programs beside hostd that keep volumes, asked over HTTP on a socket
//! (Docker's volume plugin protocol).
//!
//! - `address`: finds plugins, and parses their addresses.
//! - `call`: one request and its answer, limited in bytes and time.
//! - `driver`: the requests to a plugin.
//! - `error`: errors.
//! - `limits`: limits of time and size.
//!
//! [`Plugins`] knows them all. A hanging plugin delays only requests for its own volumes: the
//! number of waiting requests is limited, and requests to all plugins skip a silent one.

mod address;
mod call;
mod driver;
mod error;
mod limits;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) use driver::{Found, Hurry, Plugin};
pub use error::{DescriptionError, PluginError};

use crate::lock::lock;
use crate::types::LOCAL;

/// How many plugins are used. The protocol has no limit.
const MOST: usize = 32;
/// How long after its start hostd waits for a missing plugin: the plugin's program may be started
/// with the machine, perhaps as a container.
const EARLY: Duration = Duration::from_secs(30);
/// Pause before it is searched again.
const PAUSE: Duration = Duration::from_millis(200);

/// The plugins of a host.
#[derive(Debug)]
pub(crate) struct Plugins {
    directories: Vec<PathBuf>,
    /// The plugins that were found, with their state.
    known: Mutex<BTreeMap<String, Arc<Plugin>>>,
    /// Requests to all of them.
    under_way: driver::Count,
    opened: Instant,
}

impl Plugins {
    /// Uses the plugins in these directories.
    pub(crate) fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            known: Mutex::default(),
            under_way: driver::Count::default(),
            opened: Instant::now(),
        }
    }

    /// The plugin of this name, if it keeps volumes.
    ///
    /// # Errors
    /// There is no such plugin, it can't be reached, or it keeps no volumes.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        let plugin = self.known(name)?;
        plugin.activate(limits::SHORT)?;
        Ok(plugin)
    }

    /// As [`Plugins::find`]. Shortly after the start it waits for a missing plugin.
    ///
    /// # Errors
    /// As for [`Plugins::find`].
    pub(crate) fn find_soon(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        loop {
            match self.find(name) {
                Err(error) if error.is_absence() && self.opened.elapsed() < EARLY => {
                    std::thread::sleep(PAUSE);
                }
                found => return found,
            }
        }
    }

    /// Asks all plugins at the same time, and returns their answers by name. Plugins that were
    /// silent a moment ago are not asked.
    pub(crate) fn ask_all<T: Send>(
        &self,
        ask: impl Fn(&Plugin) -> Result<T, PluginError> + Sync,
    ) -> Vec<(String, Result<T, PluginError>)> {
        let mut names = address::names(&self.directories);
        names.retain(|name| name != LOCAL);
        if names.len() > MOST {
            tracing::warn!(
                count = names.len(),
                "more than {MOST} volume plugins: the last ones are asked by their names only"
            );
            names.truncate(MOST);
        }
        let ask = |name: &str| {
            let plugin = self.known(name)?;
            plugin.unless_silent(|| {
                let _place = plugin.enter()?;
                plugin.activate(limits::GLANCE)?;
                ask(&plugin)
            })
        };
        std::thread::scope(|scope| {
            let asked: Vec<_> = names
                .iter()
                .map(|name| {
                    let thread = std::thread::Builder::new().name("volume-plugin".to_owned());
                    (name, thread.spawn_scoped(scope, || ask(name)))
                })
                .collect();
            let answers = asked.into_iter().map(|(name, thread)| {
                let answer = thread.ok().and_then(|thread| thread.join().ok());
                let answer = answer.unwrap_or_else(|| Err(PluginError::busy(name)));
                (name.clone(), answer)
            });
            answers
                .filter(|(_, answer)| !matches!(answer, Err(PluginError::NoVolumes { .. })))
                .collect()
        })
    }

    /// The names of the plugins that keep volumes and answer.
    pub(crate) fn names(&self) -> Vec<String> {
        let all = self.ask_all(|_| Ok(()));
        let answered = all.into_iter().filter(|(_, answer)| answer.is_ok());
        answered.map(|(name, _)| name).collect()
    }

    /// An existing plugin, whether it answers or not. If its address has changed, its state is
    /// forgotten.
    fn known(&self, name: &str) -> Result<Arc<Plugin>, PluginError> {
        let address = address::find(&self.directories, name)?;
        let mut known = lock(&self.known);
        if let Some(plugin) = known.get(name).filter(|plugin| plugin.is_at(&address)) {
            return Ok(Arc::clone(plugin));
        }
        let plugin = Arc::new(Plugin::new(name, address, &self.under_way));
        known.retain(|name, _| address::find(&self.directories, name).is_ok());
        known.insert(name.to_owned(), Arc::clone(&plugin));
        Ok(plugin)
    }
}
