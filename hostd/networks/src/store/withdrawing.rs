//! The end of a container's run, in two steps with the kernel's part in between. First the
//! container is removed from its networks; then its addresses are released.

use std::sync::Arc;

use super::Store;
use super::giving::take_back;
use super::state::RunningMember;
use crate::types::{Binding, Endpoint, Network, NetworkAction};

/// What a container had whose run has ended.
#[derive(Debug, Clone)]
pub(crate) struct Withdrawn {
    /// Its connections, each with its network if that exists.
    pub(crate) connections: Vec<(Arc<Network>, Endpoint)>,
    /// Its published ports.
    pub(crate) bindings: Vec<Binding>,
}

impl Store {
    /// Removes a container from all its networks, and sends the events. Its addresses stay reserved
    /// until [`Store::finish`], because packets may still be under way. `None`: it is in no
    /// network.
    pub(crate) fn withdraw(&self, container: &str) -> Option<Withdrawn> {
        let mut state = self.state();
        let mut member = state.members.remove(container)?;
        let mut connections = Vec::new();
        for endpoint in &member.endpoints {
            let Some(entry) = state.network(&endpoint.network) else {
                continue;
            };
            if member.announced.contains(&endpoint.id) {
                let container = container.to_owned();
                self.emit(NetworkAction::Disconnect { container }, &entry.network);
            }
            connections.push((Arc::clone(&entry.network), endpoint.clone()));
        }
        let withdrawn = Withdrawn {
            connections,
            bindings: member.bindings.clone(),
        };
        // Its addresses stay reserved, but its networks may be removed.
        member.leases.clear();
        state.leaving.insert(container.to_owned(), member);
        Some(withdrawn)
    }

    /// Releases the addresses of a withdrawn container.
    pub(crate) fn finish(&self, container: &str) {
        let mut state = self.state();
        let Some(member) = state.leaving.remove(container) else {
            return;
        };
        // The file may contain more than the container has. The next engine then releases it again.
        if let Err(error) = self.runs.write(container, &RunningMember::default()) {
            tracing::warn!(container, %error, "networks of a container not written down");
        }
        take_back(&mut state, &member.endpoints);
    }

    /// Withdrawn containers whose addresses are not released yet.
    pub(crate) fn leaving(&self) -> Vec<String> {
        self.state().leaving.keys().cloned().collect()
    }

    /// The links on the host of containers that run or are ending. `None`: they are not all known,
    /// because a file of a running container can't be read.
    pub(crate) fn host_links(&self) -> Option<Vec<String>> {
        if !self.knows_all_runs {
            return None;
        }
        let state = self.state();
        let links = state.host_links().filter(|link| !link.is_empty());
        Some(links.map(str::to_owned).collect())
    }
}
