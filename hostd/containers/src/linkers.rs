//! Which containers are linked to others.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connected::{DEFAULT, connections};
use crate::types::Snapshot;

/// The identifiers of the containers that are linked to others in the default network. There are few, or
/// none: nobody looks at all containers when one is started.
#[derive(Debug, Default)]
pub(crate) struct Linkers(Mutex<BTreeSet<String>>);

impl Linkers {
    /// Notes whether a container is linked to others.
    pub(crate) fn note(&self, snapshot: &Snapshot) {
        let connections = connections(snapshot);
        let default = connections.iter().find(|known| known.network == DEFAULT);
        let mut linkers = self.lock();
        match default.is_some_and(|known| !known.links.is_empty()) {
            true => drop(linkers.insert(snapshot.id.clone())),
            false => drop(linkers.remove(&snapshot.id)),
        }
    }

    pub(crate) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
