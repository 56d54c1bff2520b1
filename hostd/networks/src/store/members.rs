//! The connections of containers: what running ones have, and what stopped ones will request.

use std::sync::Arc;

use keelson_model::spec::ConnectionSpec;

use super::Store;
use super::giving::{check, give, new_host_link, take_back};
use super::plan::{self, Known, Wish};
use super::state::{RunningMember, State};
use crate::NetworkError;
use crate::types::{Binding, Driver, Endpoint, Network, NetworkAction, NetworkMember};

impl Store {
    /// Allocates what a container needs for further connections, and records it on disk. Its
    /// default routes may change by that ([`Store::endpoints_of`]). Returns the new connections in
    /// the order of their interfaces.
    ///
    /// # Errors
    /// A network does not exist, has no free address, or does not fit; the container is
    /// already in it; the disk fails. Nothing is allocated then.
    pub(crate) fn reserve(
        &self,
        container: &str,
        name: &str,
        connections: &[ConnectionSpec],
    ) -> Result<Vec<Endpoint>, NetworkError> {
        let mut state = self.state();
        let known = state.members.get(container).cloned().unwrap_or_default();
        let networks = wished(&state, &known, name, connections)?;
        let mut wishes: Vec<Wish<'_>> = connections
            .iter()
            .zip(&networks)
            .map(|(spec, network)| (spec, &**network))
            .collect();
        if known.endpoints.is_empty() {
            plan::order(&mut wishes);
        }
        let used = known.endpoints.iter().map(|end| end.interface.clone());
        let interfaces = plan::interfaces(used, &wishes)?;
        let mut given = Vec::new();
        for ((spec, network), interface) in wishes.into_iter().zip(interfaces) {
            let taken: Vec<&str> = given.iter().map(|end: &Endpoint| &*end.host_link).collect();
            let host_link = match network.driver {
                Driver::Bridge(_) => new_host_link(&state, &taken),
                _ => String::new(),
            };
            match give(&mut state, container, name, spec, network) {
                Ok(end) => given.push(Endpoint {
                    interface,
                    host_link,
                    ..end
                }),
                Err(error) => {
                    take_back(&mut state, &given);
                    return Err(error);
                }
            }
        }
        let mut member = known;
        name.clone_into(&mut member.name);
        let first = member.endpoints.len();
        let held = given
            .iter()
            .map(|end| (end.id.clone(), state.hold(container, end)));
        member.leases.extend(held);
        member.endpoints.extend(given);
        route(&state, &mut member);
        let given = member.endpoints.get(first..).unwrap_or_default().to_vec();
        if let Err(error) = self.runs.write(container, &member) {
            take_back(&mut state, &given);
            return Err(error);
        }
        if !member.endpoints.is_empty() {
            state.members.insert(container.to_owned(), member);
        }
        Ok(given)
    }

    /// Releases a connection. Returns the remaining ones, whose default routes may have changed. A
    /// missing connection is no error, so that cleaning up can be repeated.
    pub(crate) fn release(&self, container: &str, endpoint: &str) -> Vec<Endpoint> {
        self.take_away(container, |end| end.id == endpoint)
    }

    /// Releases everything that a container has.
    pub(crate) fn release_all(&self, container: &str) {
        self.take_away(container, |_| true);
    }

    fn take_away(&self, container: &str, which: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let mut state = self.state();
        let Some(mut member) = state.members.remove(container) else {
            return Vec::new();
        };
        let (gone, left) = member.endpoints.drain(..).partition(which);
        member.endpoints = left;
        if member.endpoints.is_empty() {
            member.bindings.clear();
        }
        route(&state, &mut member);
        // The file may contain more than the container has. The next engine then releases it again.
        if let Err(error) = self.runs.write(container, &member) {
            tracing::warn!(container, %error, "networks of a container not written down");
        }
        take_back(&mut state, &gone);
        state.remember(container, &gone);
        for end in gone {
            member.leases.remove(&end.id);
            if member.announced.remove(&end.id)
                && let Some(entry) = state.network(&end.network)
            {
                let container = container.to_owned();
                self.emit(NetworkAction::Disconnect { container }, &entry.network);
            }
        }
        let left = member.endpoints.clone();
        if !left.is_empty() {
            state.members.insert(container.to_owned(), member);
        }
        left
    }

    /// Sends the event that a container is connected. Subscribers get its disconnect event only
    /// after this.
    pub(crate) fn announce(&self, container: &str, endpoint: &str) {
        let mut state = self.state();
        let Some(member) = state.members.get_mut(container) else {
            return;
        };
        let Some(end) = member.endpoints.iter().find(|end| end.id == endpoint) else {
            return;
        };
        let network = end.network.clone();
        if member.announced.insert(endpoint.to_owned())
            && let Some(entry) = state.network(&network)
        {
            let container = container.to_owned();
            self.emit(NetworkAction::Connect { container }, &entry.network);
        }
    }

    /// Releases the IPv6 addresses of a container that turned out to have no IPv6. Returns its
    /// connections.
    ///
    /// # Errors
    /// The disk fails. Nothing has changed then.
    pub(crate) fn drop_ipv6(&self, container: &str) -> Result<Vec<Endpoint>, NetworkError> {
        let mut state = self.state();
        let Some(mut member) = state.members.get(container).cloned() else {
            return Ok(Vec::new());
        };
        let mut free = Vec::new();
        for end in &mut member.endpoints {
            if let Some(prefix) = end.ipv6.take() {
                free.push((end.network.clone(), prefix.address));
            }
            end.gateway_ipv6 = None;
        }
        route(&state, &mut member);
        self.runs.write(container, &member)?;
        for (network, address) in free {
            if let Some(entry) = state.network_mut(&network) {
                entry.space.release(address);
            }
        }
        let ends = member.endpoints.clone();
        state.members.insert(container.to_owned(), member);
        Ok(ends)
    }

    /// Records the published ports of a running container. They replace the earlier ones.
    ///
    /// # Errors
    /// The disk fails. The earlier record is kept.
    pub(crate) fn set_bindings(
        &self,
        container: &str,
        name: &str,
        bindings: Vec<Binding>,
    ) -> Result<(), NetworkError> {
        let mut state = self.state();
        let mut member = state.members.get(container).cloned().unwrap_or_default();
        name.clone_into(&mut member.name);
        member.bindings = bindings;
        self.runs.write(container, &member)?;
        match member.bindings.is_empty() && member.endpoints.is_empty() {
            true => drop(state.members.remove(container)),
            false => drop(state.members.insert(container.to_owned(), member)),
        }
        Ok(())
    }

    /// The published ports of a running container.
    pub(crate) fn bindings_of(&self, container: &str) -> Vec<Binding> {
        let state = self.state();
        let member = state.members.get(container);
        member
            .map(|member| member.bindings.clone())
            .unwrap_or_default()
    }

    /// The connections of a running container, in the order of their interfaces.
    pub(crate) fn endpoints_of(&self, container: &str) -> Vec<Endpoint> {
        let state = self.state();
        let member = state.members.get(container);
        member
            .map(|member| member.endpoints.clone())
            .unwrap_or_default()
    }

    /// The connection of a running container to a network.
    ///
    /// # Errors
    /// There is no such network, or the container is not in it.
    pub(crate) fn endpoint(&self, container: &str, term: &str) -> Result<Endpoint, NetworkError> {
        let state = self.state();
        let network = &state.find(term)?.network;
        let mut inside = state.inside(&network.id);
        let found = inside.find(|(id, ..)| *id == container);
        found
            .map(|(.., endpoint)| endpoint.clone())
            .ok_or_else(|| NetworkError::NotConnected {
                container: container.to_owned(),
                network: network.name.clone(),
            })
    }

    /// The running containers in a network, by their identifiers.
    pub(crate) fn endpoints_in(&self, id: &str) -> Vec<NetworkMember> {
        self.state().members_in(id)
    }

    /// Records the new name of a running container.
    pub(crate) fn rename(&self, container: &str, name: &str) {
        let mut state = self.state();
        let Some(member) = state.members.get_mut(container) else {
            return;
        };
        name.clone_into(&mut member.name);
        if let Err(error) = self.runs.write(container, member) {
            tracing::warn!(container, %error, "new name of a container not written down");
        }
    }

    /// Records what a container will request at each start. Others get its addresses only when no
    /// other is free.
    pub(crate) fn configure(&self, container: &str, connections: &[ConnectionSpec]) {
        self.state().configure(container, connections);
    }

    /// Forgets a container that was removed.
    pub(crate) fn forget(&self, container: &str) {
        self.state().forget(container);
    }

    /// Checks that a connection fits its network, which must exist.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`] and the like, [`NetworkError::Endpoint`].
    pub(crate) fn check(&self, connection: &ConnectionSpec) -> Result<Arc<Network>, NetworkError> {
        let state = self.state();
        let network = Arc::clone(&state.find(&connection.network)?.network);
        check(&network, connection)?;
        Ok(network)
    }
}

/// Finds the networks of requested connections.
fn wished(
    state: &State,
    known: &RunningMember,
    name: &str,
    connections: &[ConnectionSpec],
) -> Result<Vec<Arc<Network>>, NetworkError> {
    let mut networks: Vec<Arc<Network>> = Vec::new();
    for connection in connections {
        let network = &state.find(&connection.network)?.network;
        let mut inside = known.endpoints.iter().map(|end| &end.network);
        if inside.any(|id| *id == network.id) || networks.iter().any(|one| one.id == network.id) {
            return Err(NetworkError::Connected {
                container: name.to_owned(),
                network: network.name.clone(),
            });
        }
        check(network, connection)?;
        networks.push(Arc::clone(network));
    }
    Ok(networks)
}

/// Chooses the connections of a container's default routes.
fn route(state: &State, member: &mut RunningMember) {
    let network = |end: &Endpoint| state.network(&end.network).map(|entry| &*entry.network);
    let ends: Vec<Known<'_>> = member
        .endpoints
        .iter()
        .map(|end| (end, network(end)))
        .collect();
    let (ipv4, ipv6) = (
        plan::default_route(&ends, false),
        plan::default_route(&ends, true),
    );
    for end in &mut member.endpoints {
        end.default_ipv4 = ipv4.as_ref() == Some(&end.id);
        end.default_ipv6 = ipv6.as_ref() == Some(&end.id);
    }
}
