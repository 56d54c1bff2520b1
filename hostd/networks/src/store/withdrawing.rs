//! The end of a container's run, in two steps with the kernel's work in between: first it is in no network
//! any more, then its addresses are free.

use std::sync::Arc;

use super::Store;
use super::giving::take_back;
use super::state::Member;
use crate::types::{Binding, Endpoint, Network};

/// What a container had whose run is over.
#[derive(Debug, Clone)]
pub(crate) struct Withdrawn {
    /// Its connections, with their networks as far as these are there.
    pub(crate) connections: Vec<(Arc<Network>, Endpoint)>,
    /// Its published ports.
    pub(crate) bindings: Vec<Binding>,
}

impl Store {
    /// Takes a container out of all its networks, which subscribers are told. Its addresses stay its own
    /// until [`Store::finish`]: packets may be on their way. `None`: it is in none.
    pub(crate) fn withdraw(&self, container: &str) -> Option<Withdrawn> {
        let mut state = self.state();
        let member = state.members.remove(container)?;
        let mut connections = Vec::new();
        for endpoint in &member.endpoints {
            let Some(entry) = state.network(&endpoint.network) else {
                continue;
            };
            if member.announced.contains(&endpoint.id) {
                self.emit("disconnect", &entry.network, Some(container));
            }
            connections.push((Arc::clone(&entry.network), endpoint.clone()));
        }
        let withdrawn = Withdrawn {
            connections,
            bindings: member.bindings.clone(),
        };
        state.leaving.insert(container.to_owned(), member);
        Some(withdrawn)
    }

    /// Makes the addresses of a container that was withdrawn free.
    pub(crate) fn finish(&self, container: &str) {
        let mut state = self.state();
        let Some(member) = state.leaving.remove(container) else {
            return;
        };
        // The file may say more than there is: the next engine then takes it back again.
        if let Err(error) = self.runs.write(container, &Member::default()) {
            tracing::warn!(container, %error, "networks of a container not written down");
        }
        take_back(&mut state, &member.endpoints);
    }

    /// Containers that were withdrawn, and whose addresses are not free yet.
    pub(crate) fn leaving(&self) -> Vec<String> {
        self.state().leaving.keys().cloned().collect()
    }

    /// The links on the host of containers that run, or that are about to end. `None`: they are not all
    /// known, because a file of a running container can't be read.
    pub(crate) fn host_links(&self) -> Option<Vec<String>> {
        if !self.knows_all_runs {
            return None;
        }
        let state = self.state();
        let links = state.host_links().filter(|link| !link.is_empty());
        Some(links.map(str::to_owned).collect())
    }
}
