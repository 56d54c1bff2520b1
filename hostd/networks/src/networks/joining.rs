//! The networks of a container's run. They are reserved before the run is created, attached between
//! its creation and its start, and left at its end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keelson_blocking::blocking;
use keelson_model::spec::Port;
use keelson_resolver_protocol::{Ports as ResolverPorts, Sockets};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::watch;

use super::member::{Member, Run};
use super::{Inner, Networks};
use crate::NetworkError;
use crate::firewall::Elements;
use crate::kernel::ContainerNamespace;
use crate::names::{ContainerNames, names_in, serve_here};
use crate::ports::{Facts, Holder, Lost};
use crate::types::{Binding, Endpoint, Network};

/// Containers that run, start or end.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<HashMap<String, Arc<Seat>>>);

/// The state of one container's networks.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Held by the one operation that may run at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Its first process; 0: none.
    pid: Mutex<i32>,
    /// How far it has left the networks of its last run.
    leaving: Mutex<Option<watch::Receiver<Departure>>>,
}

/// How far a container has left its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Departure {
    /// Nobody sees it in its networks any more.
    Begun,
    /// Its ports and names are free.
    Quiet,
    /// Its addresses are free.
    Done,
}

impl Seats {
    pub(super) fn of(&self, container: &str) -> Arc<Seat> {
        let mut seats = self.lock();
        Arc::clone(seats.entry(container.to_owned()).or_default())
    }

    /// A container with a known state.
    pub(super) fn get(&self, container: &str) -> Option<Arc<Seat>> {
        self.lock().get(container).cloned()
    }

    /// Forgets a container, unless another operation waits for it.
    pub(super) fn forget(&self, container: &str) {
        let mut seats = self.lock();
        if seats
            .get(container)
            .is_some_and(|seat| Arc::strong_count(seat) == 1)
        {
            seats.remove(container);
        }
    }

    pub(super) fn pid(&self, container: &str) -> Option<i32> {
        let seats = self.lock();
        let pid = seats.get(container).map(|seat| seat.pid())?;
        (pid > 0).then_some(pid)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn pid(&self) -> i32 {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the container is leaving. From now on others wait until it has left.
    pub(super) fn leaves(&self) -> watch::Sender<Departure> {
        let (departure, seen) = watch::channel(Departure::Begun);
        *self.leaving.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        departure
    }

    /// Waits until the container has left the networks of its last run, at least to this stage.
    pub(super) async fn wait_for(&self, stage: Departure) {
        let seen = self
            .leaving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(mut seen) = seen {
            // If the sender is gone, the leaving has ended, whatever its result.
            let _ = seen.wait_for(|departure| *departure >= stage).await;
        }
    }

    pub(super) fn set_pid(&self, pid: i32) {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }
}

impl Networks {
    /// What a running container has; nothing if it does not run.
    pub fn run_of(&self, container: &str) -> Run {
        Run {
            endpoints: self.0.store.endpoints_of(container),
            bindings: self.0.store.bindings_of(container),
        }
    }

    /// Reserves the addresses and host ports of a run. Waits until an earlier run of the container
    /// has left its networks.
    ///
    /// # Errors
    /// A network does not exist or has no free address, or a port is taken. Nothing is
    /// reserved then.
    pub async fn reserve(&self, member: &Member) -> Result<(), NetworkError> {
        let Some(connections) = member.connections.as_deref().filter(|all| !all.is_empty()) else {
            return Ok(());
        };
        let inner = &self.0;
        let seat = inner.seats.of(&member.id);
        seat.wait_for(Departure::Done).await;
        let _turn = seat.turn.lock().await;
        let reserved = async {
            inner.store.reserve(&member.id, &member.name, connections)?;
            if !member.ipv6 {
                inner.store.drop_ipv6(&member.id)?;
            }
            inner.bind_ports(member).await
        };
        reserved.await.map_err(|error| {
            inner.ports.release(&member.id);
            inner.store.release_all(&member.id);
            NetworkError::NotStarted(Box::new(error))
        })
    }

    /// Connects the network namespace of a created container that has not started yet. `pid`: its
    /// first process. If this fails, the caller must call [`Networks::leave`].
    ///
    /// # Errors
    /// The kernel or the resolver refuses.
    pub async fn attach(&self, member: &Member, pid: i32) -> Result<(), NetworkError> {
        let seat = self.0.seats.of(&member.id);
        let _turn = seat.turn.lock().await;
        let connections = self.0.connections_of(&member.id);
        if connections.is_empty() {
            return Ok(());
        }
        seat.set_pid(pid);
        let attached = self.0.attach(member, pid, &connections).await;
        attached.map_err(|error| NetworkError::NotStarted(Box::new(error)))
    }

    /// Adopts the networks of a container that an earlier engine has started.
    ///
    /// # Errors
    /// The container's namespace can't be entered.
    pub async fn adopt(&self, member: &Member, pid: i32) -> Result<(), NetworkError> {
        let inner = &self.0;
        let seat = inner.seats.of(&member.id);
        let _turn = seat.turn.lock().await;
        let connections = inner.connections_of(&member.id);
        if connections.is_empty() {
            return Ok(());
        }
        seat.set_pid(pid);
        for lost in inner.bind_ports_again(member).await? {
            tracing::error!(
                container = member.id,
                port = lost.binding.host_port,
                error = %lost.reason,
                "a published port is not reserved any more; it stays published"
            );
        }
        inner.tell_names(member, &connections, None).await?;
        let parts = inner.parts().await?;
        let namespace = ContainerNamespace::of_process(pid.unsigned_abs())?;
        parts
            .kernel
            .announce(&namespace, &pairs(&connections))
            .await?;
        Ok(())
    }

    /// Ends the adoption of containers. Those for which `runs` returns `false` leave their
    /// networks, and names are served from now on.
    pub async fn settle(&self, runs: impl Fn(&str) -> bool + Send) {
        for found in self.recovered() {
            if !runs(&found.container) {
                self.leave(&found.container).await;
            }
        }
        self.0.names.settle();
    }
}

impl Member {
    pub(super) fn holder(&self) -> Holder<'_> {
        Holder {
            id: &self.id,
            name: &self.name,
        }
    }
}

impl Inner {
    /// A running container's connections with their networks, in the order of its interfaces.
    pub(super) fn connections_of(&self, container: &str) -> Vec<(Arc<Network>, Endpoint)> {
        let endpoints = self.store.endpoints_of(container).into_iter();
        let found = endpoints.filter_map(|endpoint| {
            let network = self.store.find(&endpoint.network).ok()?;
            Some((network, endpoint))
        });
        found.collect()
    }

    /// Reserves the ports of a container, as its connections publish them.
    pub(super) async fn bind_ports(self: &Arc<Self>, member: &Member) -> Result<(), NetworkError> {
        if member.published.is_empty() && member.publish_any.is_empty() {
            return Ok(());
        }
        let (inner, of) = (Arc::clone(self), member.clone());
        // This binds sockets, and may search for the program that has a port.
        let reserve = move || {
            let connections = inner.connections_of(&of.id);
            let facts = Facts::of(connections.iter().map(|(network, end)| (&**network, end)));
            let exposed: Vec<Port> = of.publish_any.iter().copied().collect();
            let bindings = inner
                .ports
                .reserve(of.holder(), &of.published, &exposed, &facts)
                .map_err(|source| NetworkError::Port {
                    name: of.name.clone(),
                    endpoint: connections
                        .first()
                        .map(|(_, endpoint)| endpoint.id.clone())
                        .unwrap_or_default(),
                    source: Box::new(source),
                })?;
            inner.store.set_bindings(&of.id, &of.name, bindings)
        };
        blocking(reserve).await?
    }

    /// Reserves again the ports that a container had before this engine. Returns those that another
    /// program has taken.
    async fn bind_ports_again(
        self: &Arc<Self>,
        member: &Member,
    ) -> Result<Vec<Lost>, NetworkError> {
        let (inner, of) = (Arc::clone(self), member.clone());
        let reserve = move || {
            let bindings = inner.store.bindings_of(&of.id);
            inner.ports.reserve_again(of.holder(), &bindings)
        };
        Ok(blocking(reserve).await?)
    }

    async fn attach(
        self: &Arc<Self>,
        member: &Member,
        pid: i32,
        connections: &[(Arc<Network>, Endpoint)],
    ) -> Result<(), NetworkError> {
        let parts = self.parts().await?;
        let namespace = ContainerNamespace::of_process(pid.unsigned_abs())?;
        let bindings = self.store.bindings_of(&member.id);
        let named = connections.iter().any(|(network, _)| has_names(network));
        let inside = move || named.then(|| serve_here(None)).transpose();
        let links = pairs(connections);
        let (filtered, attached) = tokio::join!(
            parts.filter(self.elements(connections, &bindings), Elements::default()),
            parts.kernel.attach(&namespace, &links, inside),
        );
        filtered?;
        let attached = attached?;
        let sockets = attached.inside.map_err(NetworkError::NameSockets)?;
        if !attached.ipv6 {
            self.store.drop_ipv6(&member.id)?;
        }
        let connections = &*self.connections_of(&member.id);
        let sockets = with_life(sockets, pid);
        self.tell_names(member, connections, sockets).await?;
        for (_, endpoint) in connections {
            self.store.announce(&member.id, &endpoint.id);
        }
        Ok(())
    }

    /// Sends a container's names and name servers to the resolver.
    pub(super) async fn tell_names(
        &self,
        member: &Member,
        connections: &[(Arc<Network>, Endpoint)],
        sockets: Option<Sockets>,
    ) -> Result<(), NetworkError> {
        let links = pairs(connections);
        let networks = names_in(&member.id, &member.name, &member.host_name, &links);
        if networks.is_empty() && sockets.is_none() {
            // It may have been in one before.
            return Ok(self.names.remove(&member.id).await?);
        }
        let ends = || connections.iter().map(|(_, endpoint)| endpoint);
        let names = ContainerNames {
            id: member.id.clone(),
            networks,
            wishes: member.wishes.clone(),
            ipv6: ends().any(|endpoint| endpoint.ipv6.is_some()),
            may_ask_host: ends().any(|endpoint| endpoint.default_ipv4 || endpoint.default_ipv6),
        };
        Ok(self.names.set(names, sockets).await?)
    }

    /// Removes the elements of connections from the packet filter.
    pub(super) async fn unfilter(
        self: &Arc<Self>,
        connections: &[(Arc<Network>, Endpoint)],
        bindings: &[Binding],
    ) -> Result<(), NetworkError> {
        let removed = self.elements(connections, bindings);
        if removed.is_empty() {
            return Ok(());
        }
        self.parts()
            .await?
            .filter(Elements::default(), removed)
            .await
    }
}

/// Whether a network has names of containers.
pub(super) fn has_names(network: &Network) -> bool {
    !network.predefined
}

pub(super) fn pairs(connections: &[(Arc<Network>, Endpoint)]) -> Vec<(&Network, &Endpoint)> {
    let pairs = connections.iter();
    pairs
        .map(|(network, endpoint)| (&**network, endpoint))
        .collect()
}

/// The sockets of a container's name server, and its process: its end shows the resolver that the
/// container has ended, even if hostd is down.
pub(super) fn with_life(sockets: Option<Sockets>, pid: i32) -> Option<Sockets> {
    let mut sockets = sockets?;
    let process = Pid::from_raw(pid);
    sockets.life = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
    Some(sockets)
}

/// Opens them in the namespace of a container's process.
pub(super) fn serve_names_of(pid: i32, before: Option<ResolverPorts>) -> std::io::Result<Sockets> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = keelson_netlink::Namespace::open(Path::new(&path));
    let namespace = namespace.map_err(std::io::Error::other)?;
    let sockets = namespace
        .run(|| serve_here(before))
        .map_err(std::io::Error::other)??;
    with_life(Some(sockets), pid).ok_or_else(|| std::io::ErrorKind::NotFound.into())
}
