//! A container's connections to networks: created for each run, and changed while the container
//! exists.

use std::collections::BTreeSet;
use std::sync::Arc;

use hostd_networks::{Member, NetworkError};
use keelson_model::spec::{ConnectionSpec, NetworkMode};

use crate::connected::{connections, has_ipv6, is_connected};
use crate::container::Container;
use crate::document::ContainerDocument;
use crate::engine::{Inner, require_readable};
use crate::types::{Scope, Snapshot};
use crate::{Engine, EngineError};

impl Engine {
    /// Connects a container to a network; at once if it runs.
    ///
    /// # Errors
    /// It is already connected, shares another container's network, or the network has no
    /// free address. Nothing is changed then.
    pub async fn connect(
        &self,
        scope: Scope,
        name: &str,
        connection: ConnectionSpec,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            let _guard = container.lock().await?;
            require_readable(&container)?;
            inner.connect(&container, connection).await
        })
        .await
    }

    /// Disconnects a container from a network; at once if it runs.
    ///
    /// # Errors
    /// It is not connected to that network.
    pub async fn disconnect(
        &self,
        scope: Scope,
        name: &str,
        network: &str,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        let network = network.to_owned();
        Self::whole(async move {
            let _guard = container.lock().await?;
            require_readable(&container)?;
            inner.disconnect(&container, &network).await
        })
        .await
    }
}

impl Inner {
    async fn connect(
        &self,
        container: &Container,
        connection: ConnectionSpec,
    ) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        let network = self.networks.find(&connection.network)?;
        check_mode(&snapshot)?;
        if matches!(network.name.as_str(), "host" | "none") {
            return Err(EngineError::Invalid(format!(
                "container cannot be connected to {} network: choose it when the container is made",
                network.name
            )));
        }
        let running = snapshot.state.status.has_process();
        let mut connections = connections(&snapshot);
        let known = connections
            .iter()
            .position(|known| self.is_of(known, &network.id));
        match known {
            Some(_) if running => {
                return Err(NetworkError::Connected {
                    container: snapshot.name.clone(),
                    network: network.name.clone(),
                }
                .into());
            }
            // It does not run: the new settings replace the old ones.
            Some(index) => drop(connections.remove(index)),
            None => {}
        }
        let connection = ConnectionSpec {
            network: network.name.clone(),
            ..connection
        };
        connections.push(connection.clone());
        let changed = with_connections(&snapshot, connections);
        self.networks.check(&connection)?;
        self.write_document(&changed, &ContainerDocument::of(&changed)?)?;
        if running {
            let member = self.member(&changed);
            match self.networks.connect(&member, &connection).await {
                Ok(endpoint) => {
                    self.name_in_hosts(&changed, &endpoint);
                    self.renew_resolv_conf(&changed);
                }
                Err(error) => {
                    self.write_document(&snapshot, &ContainerDocument::of(&snapshot)?)?;
                    return Err(error.into());
                }
            }
        }
        self.keep_connections(container, &changed);
        Ok(())
    }

    async fn disconnect(&self, container: &Container, network: &str) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        // The network may have been removed; then the connection must be removed from the
        // container.
        let found = self.networks.find(network).ok();
        let shown = found.as_ref().map_or(network, |found| &found.name);
        if snapshot.spec.namespaces.network == NetworkMode::Host && shown == "host" {
            return Err(EngineError::Invalid(
                "container cannot be disconnected from host network or connected to host network"
                    .to_owned(),
            ));
        }
        let mut connections = connections(&snapshot);
        let before = connections.len();
        connections.retain(|known| {
            let same = found
                .as_ref()
                .is_some_and(|found| self.is_of(known, &found.id));
            !same && known.network != network
        });
        if connections.len() == before {
            let found = self.networks.find(network)?;
            return Err(NetworkError::NotConnected {
                container: snapshot.id.clone(),
                network: found.name.clone(),
            }
            .into());
        }
        let changed = with_connections(&snapshot, connections);
        self.write_document(&changed, &ContainerDocument::of(&changed)?)?;
        if snapshot.state.status.has_process()
            && let Some(found) = &found
        {
            let member = self.member(&changed);
            match self.networks.disconnect(&member, &found.id).await {
                Ok(endpoint) => {
                    self.remove_from_hosts(&changed, &endpoint);
                    self.renew_resolv_conf(&changed);
                }
                // A killed engine has recorded the connection, but not made it.
                Err(NetworkError::NotConnected { .. }) => {}
                Err(error) => {
                    self.write_document(&snapshot, &ContainerDocument::of(&snapshot)?)?;
                    return Err(error.into());
                }
            }
        }
        self.keep_connections(container, &changed);
        Ok(())
    }

    fn keep_connections(&self, container: &Container, changed: &Snapshot) {
        let spec = Arc::clone(&changed.spec);
        container.live().update(|current| current.spec = spec);
        self.configure_networks(changed);
    }

    /// Records the addresses that a container requests at each start, and whether it has links.
    pub(crate) fn configure_networks(&self, snapshot: &Snapshot) {
        if is_connected(snapshot) {
            self.linkers.note(snapshot);
            self.networks
                .configure(&snapshot.id, &connections(snapshot));
        }
    }

    /// Whether a connection is to the network of an identifier.
    fn is_of(&self, connection: &ConnectionSpec, id: &str) -> bool {
        let network = self.networks.find(&connection.network);
        network.is_ok_and(|network| network.id == id)
    }

    /// Allocates the addresses and ports of a run. In the kernel only ports are reserved.
    pub(crate) async fn reserve_networks(&self, snapshot: &Snapshot) -> Result<(), EngineError> {
        Ok(self.networks.reserve(&self.member(snapshot)).await?)
    }

    /// Connects the network namespace of a created container that has not started yet.
    pub(crate) async fn plug_in(&self, snapshot: &Snapshot, pid: i32) -> Result<(), EngineError> {
        self.networks.attach(&self.member(snapshot), pid).await?;
        self.tell_linked(snapshot);
        Ok(())
    }

    /// Adopts the networks of a container that an earlier engine has started.
    pub(crate) async fn plug_in_again(&self, snapshot: &Snapshot, pid: i32) {
        if let Err(error) = self.networks.adopt(&self.member(snapshot), pid).await {
            tracing::error!(id = snapshot.id, %error, "networks of a container from an earlier engine not served");
        }
    }

    /// Passes on a container's new name.
    pub(crate) async fn rename_in_networks(&self, snapshot: &Snapshot) {
        if snapshot.state.status.has_process() {
            self.networks.rename(&self.member(snapshot)).await;
        }
    }

    /// Removes containers that an earlier engine has started, and that have ended, from their
    /// networks. Containers whose state is not known yet are not changed.
    pub(crate) async fn settle_networks(&self) {
        let runs = |id: &str| {
            let known = |scope| self.with(scope, |registry| registry.resolve(id));
            let found = known(Scope::User).or_else(|_| known(Scope::System));
            found.is_ok_and(|found| found.snapshot().state.status.counts_as_running())
        };
        self.networks.settle(runs).await;
    }

    /// Removes a container from its networks, because its run has ended or never started. The
    /// removal has begun when this returns; the returned future waits for its end.
    pub(crate) fn unplug(&self, id: &str) -> impl Future<Output = ()> + Send + 'static {
        self.networks.leave(id)
    }
}

impl Inner {
    /// The container, as its networks see it.
    pub(crate) fn member(&self, snapshot: &Snapshot) -> Member {
        let spec = &snapshot.spec;
        Member {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            host_name: snapshot.host_name(),
            pid: snapshot.state.pid,
            ipv6: has_ipv6(snapshot),
            connections: is_connected(snapshot).then(|| connections(snapshot)),
            published: spec.published_ports.clone(),
            publish_any: match spec.publish_exposed {
                true => spec.exposed_ports.clone(),
                false => BTreeSet::new(),
            },
            wishes: self.wishes(&spec.names),
        }
    }
}

fn with_connections(snapshot: &Snapshot, connections: Vec<ConnectionSpec>) -> Snapshot {
    let mut changed = snapshot.clone();
    Arc::make_mut(&mut changed.spec).connections = Some(connections);
    changed
}

/// Whether a container may have connections at all.
fn check_mode(snapshot: &Snapshot) -> Result<(), EngineError> {
    let namespaces = &snapshot.spec.namespaces;
    if namespaces.donors.network.is_some() || namespaces.network == NetworkMode::Host {
        return Err(EngineError::Invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .to_owned(),
        ));
    }
    match namespaces.network {
        NetworkMode::None => Err(EngineError::Invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                .to_owned(),
        )),
        NetworkMode::Bridge | NetworkMode::Host => Ok(()),
    }
}
