//! The networks of a host, and which containers are in them.
//!
//! A network is a directory with a document; it exists while the document does. What a running
//! container has in its networks is one document in the run directory, which a reboot empties. So a
//! restarted engine knows what to release, and never counts anything that nobody has.
//!
//! - `document`: the document of a network; `runs`: the document of a running container.
//! - `state`: everything in memory, and how a network is found.
//! - `predefined`: the networks that every engine has.
//! - `making`: creates and removes networks, each in two steps with the kernel's part in between.
//! - `plan`: the order of a container's interfaces, their names, and its default routes.
//! - `giving`: allocates a connection's addresses, and checks its request.
//! - `members`: the connections of containers. `withdrawing`: ends all connections of a container.

mod document;
mod giving;
mod making;
mod members;
mod plan;
mod predefined;
mod runs;
mod state;
mod withdrawing;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use keelson_model::ip::IpPrefix;
use keelson_store::{Era, Objects};
use tokio::sync::broadcast;

use crate::NetworkError;
use crate::ipam::Pools;
use crate::settings::NetworkOptions;
use crate::types::{Network, NetworkAction, NetworkEvent, Recovered};
use document::NETWORK;
use runs::Runs;
use state::State;

pub(crate) use withdrawing::Withdrawn;

/// How many events a slow subscriber may lag behind before it loses some.
const EVENT_BACKLOG: usize = 1024;

/// A network that the host reaches through a link, without a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRoute {
    /// The link's name.
    pub(crate) link: String,
    /// The network.
    pub(crate) prefix: IpPrefix,
}

/// The networks of a host. All calls that change something block on files.
#[derive(Debug)]
pub(crate) struct Store {
    objects: Objects,
    era: Era,
    runs: Runs,
    /// Whether all files of running containers could be read.
    knows_all_runs: bool,
    pools: Pools,
    engine: String,
    default_options: BTreeMap<String, BTreeMap<String, String>>,
    state: Mutex<State>,
    recovered: Mutex<Vec<Recovered>>,
    events: broadcast::Sender<NetworkEvent>,
}

impl Store {
    /// Opens the networks of a host. A network whose document can't be read is listed and not
    /// changed.
    ///
    /// # Errors
    /// A directory can't be made or read, or an option of the default bridge network is wrong.
    pub(crate) fn open(
        options: NetworkOptions,
        routes: &[HostRoute],
    ) -> Result<Self, NetworkError> {
        make_directory(&options.base)?;
        make_directory(&options.run)?;
        let objects = Objects::open(&options.base, NETWORK, &options.boot)?;
        let runs = Runs::new(options.run.clone());
        let mut state = State::default();
        for id in objects.names()? {
            state.add(document::read(&objects, &id, &options.engine));
        }
        for network in predefined::plain(&options.engine) {
            state.add(network);
        }
        let found = runs.read();
        let recovered = state.recover(found.runs);
        let store = Self {
            objects,
            era: options.era,
            runs,
            knows_all_runs: found.complete,
            pools: Pools::new(&options.pools, &options.engine),
            engine: options.engine,
            default_options: options.default_options,
            state: Mutex::new(state),
            recovered: Mutex::new(recovered),
            events: broadcast::channel(EVENT_BACKLOG).0,
        };
        store.open_default_bridge(options.default_bridge.as_ref(), routes)?;
        Ok(store)
    }

    /// What containers had when this store was opened, each once.
    pub(crate) fn recovered(&self) -> Vec<Recovered> {
        std::mem::take(&mut *locked(&self.recovered))
    }

    /// The pools of automatic subnets.
    pub(crate) const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// All networks, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Network>> {
        self.state().list()
    }

    /// A network by its identifier, its name, or the beginning of its identifier.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`], [`NetworkError::Ambiguous`].
    pub(crate) fn find(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        let state = self.state();
        state.find(term).map(|entry| Arc::clone(&entry.network))
    }

    /// Events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<NetworkEvent> {
        self.events.subscribe()
    }

    /// Sends an event of a network.
    fn emit(&self, action: NetworkAction, network: &Network) {
        self.send(action, &network.id, &network.name, network.driver.as_str());
    }

    /// Sends the event that unused networks were removed.
    pub(crate) fn emit_prune(&self) {
        self.send(NetworkAction::Prune, "", "", "");
    }

    fn send(&self, action: NetworkAction, id: &str, name: &str, driver: &'static str) {
        // There may be no subscribers.
        let _ = self.events.send(NetworkEvent {
            action,
            id: id.to_owned(),
            name: name.to_owned(),
            driver,
            time: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Locks the value even if its last user panicked: every change is made only when nothing can fail
/// any more.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn make_directory(path: &Path) -> Result<(), NetworkError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(NetworkError::io("mkdir", path))
}

/// A new unique identifier of 64 hexadecimal digits.
fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests;
