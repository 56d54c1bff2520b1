//! Connects and disconnects running containers.

use std::sync::Arc;

use keelson_model::spec::ConnectionSpec;

use super::joining::{has_names, pairs, with_life};
use super::member::Member;
use super::{Inner, Networks};
use crate::NetworkError;
use crate::firewall::Elements;
use crate::kernel::ContainerNamespace;
use crate::names::serve_here;
use crate::types::{Endpoint, Network};

impl Networks {
    /// Connects a running container to a further network. `member` is the container with the new
    /// connection. Returns the new endpoint.
    ///
    /// # Errors
    /// The container does not run or is already in the network, no address is free, or the
    /// kernel refuses. Nothing has changed then.
    pub async fn connect(
        &self,
        member: &Member,
        connection: &ConnectionSpec,
    ) -> Result<Endpoint, NetworkError> {
        let inner = &self.0;
        let seat = inner.seats.of(&member.id);
        let _turn = seat.turn.lock().await;
        let before = inner.connections_of(&member.id);
        let bindings = inner.store.bindings_of(&member.id);
        let given =
            inner
                .store
                .reserve(&member.id, &member.name, std::slice::from_ref(connection))?;
        let Some(endpoint) = given.into_iter().next() else {
            return Err(NetworkError::NotConnected {
                container: member.id.clone(),
                network: connection.network.clone(),
            });
        };
        if inner.seats.pid(&member.id).is_none() {
            // It had no connection until now.
            seat.set_pid(member.pid);
        }
        let connected = inner.connect(member, &endpoint, &before).await;
        match connected {
            Ok(()) => {
                inner
                    .move_ports(member, inner.elements(&before, &bindings))
                    .await;
                inner.store.announce(&member.id, &endpoint.id);
                Ok(endpoint)
            }
            Err(error) => {
                inner.take_out(member, &endpoint).await;
                inner.settle_routes(member).await;
                Err(error)
            }
        }
    }

    /// Disconnects a running container from a network. `member` is the container without the
    /// connection. Returns its former endpoint.
    ///
    /// # Errors
    /// The container is not in the network.
    pub async fn disconnect(
        &self,
        member: &Member,
        network: &str,
    ) -> Result<Endpoint, NetworkError> {
        let inner = &self.0;
        let seat = inner.seats.of(&member.id);
        let _turn = seat.turn.lock().await;
        let endpoint = inner.store.endpoint(&member.id, network)?;
        let before = inner.connections_of(&member.id);
        let bindings = inner.store.bindings_of(&member.id);
        inner.take_out(member, &endpoint).await;
        inner
            .move_ports(member, inner.elements(&before, &bindings))
            .await;
        inner.settle_routes(member).await;
        let connections = inner.connections_of(&member.id);
        if let Err(error) = inner.tell_names(member, &connections, None).await {
            tracing::warn!(container = member.id, %error, "names of a container not changed");
        }
        Ok(endpoint)
    }

    /// Records the new name of a running container.
    pub async fn rename(&self, member: &Member) {
        let seat = self.0.seats.of(&member.id);
        let _turn = seat.turn.lock().await;
        self.0.store.rename(&member.id, &member.name);
        let connections = self.0.connections_of(&member.id);
        if connections.is_empty() {
            return;
        }
        if let Err(error) = self.0.tell_names(member, &connections, None).await {
            tracing::warn!(container = member.id, %error, "new name of a container not known");
        }
    }
}

impl Inner {
    async fn connect(
        self: &Arc<Self>,
        member: &Member,
        endpoint: &Endpoint,
        before: &[(Arc<Network>, Endpoint)],
    ) -> Result<(), NetworkError> {
        let parts = self.parts().await?;
        let namespace = ContainerNamespace::of_process(member.pid.unsigned_abs())?;
        let network = self.store.find(&endpoint.network)?;
        let served = before.iter().any(|(network, _)| has_names(network));
        let serve = has_names(&network) && !served;
        let inside = move || serve.then(|| serve_here(None)).transpose();
        let attached = parts
            .kernel
            .attach(&namespace, &[(&network, endpoint)], inside)
            .await?;
        let sockets = attached.inside.map_err(NetworkError::NameSockets)?;
        if !attached.ipv6 {
            self.store.drop_ipv6(&member.id)?;
        }
        let connections = self.connections_of(&member.id);
        parts
            .kernel
            .set_default_routes(&namespace, &pairs(&connections))
            .await?;
        let sockets = with_life(sockets, member.pid);
        self.tell_names(member, &connections, sockets).await
    }

    /// Removes an endpoint: first its link; then its address is free.
    async fn take_out(self: &Arc<Self>, member: &Member, endpoint: &Endpoint) {
        let detached = async {
            let network = self.store.find(&endpoint.network)?;
            let parts = self.parts().await?;
            let namespace = ContainerNamespace::of_process(member.pid.unsigned_abs()).ok();
            parts
                .kernel
                .detach(&network, endpoint, namespace.as_ref())
                .await?;
            Ok::<_, NetworkError>(())
        };
        if let Err(error) = detached.await {
            tracing::warn!(container = member.id, %error, "link of a container not removed");
        }
        self.store.release(&member.id, &endpoint.id);
    }

    /// Sets the default routes by the remaining connections.
    async fn settle_routes(self: &Arc<Self>, member: &Member) {
        let connections = self.connections_of(&member.id);
        let set = async {
            let parts = self.parts().await?;
            let namespace = ContainerNamespace::of_process(member.pid.unsigned_abs())?;
            parts
                .kernel
                .set_default_routes(&namespace, &pairs(&connections))
                .await?;
            Ok::<_, NetworkError>(())
        };
        if let Err(error) = set.await {
            tracing::warn!(container = member.id, %error, "default routes of a container not set");
        }
    }

    /// Publishes the ports by the current connections, instead of `before`. The old connection is
    /// gone already, so failures are only reported.
    async fn move_ports(self: &Arc<Self>, member: &Member, before: Elements) {
        if let Err(error) = self.bind_ports(member).await {
            tracing::error!(container = member.id, %error, "ports are not published any more");
        }
        let bindings = self.store.bindings_of(&member.id);
        let after = self.elements(&self.connections_of(&member.id), &bindings);
        let filtered = async {
            let parts = self.parts().await?;
            parts.filter(after, before).await
        };
        if let Err(error) = filtered.await {
            tracing::error!(container = member.id, %error, "published ports not moved");
        }
    }
}
