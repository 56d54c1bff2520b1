//! All networks and their members in memory. No change here can fail half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use keelson_lease::{Claim, Lease, Leases};
use keelson_model::ip::IpPrefix;
use keelson_model::spec::ConnectionSpec;

use crate::NetworkError;
use crate::ipam::Space;
use crate::types::{Binding, Driver, Endpoint, Network, NetworkMember, Recovered};

/// The phase of a network's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It is being created: its name and subnets are taken, and nobody sees it.
    Making,
    /// It exists.
    Ready,
    /// It is being removed: no container can be connected to it any more.
    Going,
}

/// A network and its addresses.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) network: Arc<Network>,
    pub(super) space: Space,
    pub(super) phase: Phase,
}

impl Entry {
    pub(super) fn new(network: Network, phase: Phase) -> Self {
        Self {
            space: Space::new(&network.subnets),
            network: Arc::new(network),
            phase,
        }
    }
}

/// Who holds a network: a connection of a running container.
#[derive(Debug)]
pub(super) struct NetworkHolder {
    container: String,
    endpoint: String,
}

/// Keeps a network from being removed while a container is in it
/// (docs/decisions/0018-what-is-in-use-is-held-by-leases.md).
pub(super) type NetworkLease = Lease<String, NetworkHolder>;

/// A running container.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningMember {
    pub(super) name: String,
    pub(super) endpoints: Vec<Endpoint>,
    /// The leases on the endpoints' networks, by endpoint.
    pub(super) leases: BTreeMap<String, NetworkLease>,
    pub(super) bindings: Vec<Binding>,
    /// The endpoints whose connect event was sent.
    pub(super) announced: BTreeSet<String>,
}

/// The addresses that a container requests at each start, with their networks.
type Configured = Vec<(String, Vec<IpAddr>)>;

/// The earlier automatic addresses of a container.
type Previous = BTreeMap<String, Vec<IpAddr>>;

/// How many containers' earlier addresses are remembered.
const MOST_REMEMBERED: usize = 4096;

/// All networks and their members.
#[derive(Debug, Default)]
pub(super) struct State {
    networks: BTreeMap<String, Entry>,
    leases: Leases<String, NetworkHolder>,
    pub(super) members: BTreeMap<String, RunningMember>,
    /// Containers whose run has ended, but whose links may still exist.
    pub(super) leaving: BTreeMap<String, RunningMember>,
    configured: BTreeMap<String, Configured>,
    previous: BTreeMap<String, Previous>,
}

impl State {
    /// Adds an existing network.
    pub(super) fn add(&mut self, network: Network) {
        let entry = Entry::new(network, Phase::Ready);
        self.networks.insert(entry.network.id.clone(), entry);
    }

    /// Adds a network that is being created.
    pub(super) fn begin(&mut self, network: Network) -> Arc<Network> {
        let entry = Entry::new(network, Phase::Making);
        let network = Arc::clone(&entry.network);
        self.networks.insert(network.id.clone(), entry);
        network
    }

    /// Replaces a network by one with the same identifier. Its members keep what they have.
    pub(super) fn replace(&mut self, network: Network) {
        let id = network.id.clone();
        self.add(network);
        let members = self.members_in(&id);
        if let Some(entry) = self.networks.get_mut(&id) {
            for member in members {
                take_again(&mut entry.space, &member.name, &member.endpoint);
            }
        }
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.networks.remove(id);
    }

    pub(super) fn network(&self, id: &str) -> Option<&Entry> {
        self.networks.get(id)
    }

    pub(super) fn network_mut(&mut self, id: &str) -> Option<&mut Entry> {
        self.networks.get_mut(id)
    }

    /// All networks, including those being created or removed, to check for conflicts.
    pub(super) fn all(&self) -> impl Iterator<Item = &Network> {
        self.networks.values().map(|entry| &*entry.network)
    }

    /// The existing networks, by name.
    pub(super) fn list(&self) -> Vec<Arc<Network>> {
        let there = self.networks.values();
        let there = there.filter(|entry| entry.phase == Phase::Ready);
        let mut list: Vec<_> = there.map(|entry| Arc::clone(&entry.network)).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// A network by its identifier, its name, or the beginning of its identifier, in this order.
    pub(super) fn find(&self, term: &str) -> Result<&Entry, NetworkError> {
        let there = |entry: &&Entry| entry.phase == Phase::Ready;
        if let Some(entry) = self.networks.get(term).filter(there) {
            return Ok(entry);
        }
        let named = |entry: &&Entry| entry.network.name == term;
        if let Some(entry) = self.networks.values().filter(there).find(named) {
            return Ok(entry);
        }
        let begins = |entry: &&Entry| !term.is_empty() && entry.network.id.starts_with(term);
        let found: Vec<_> = self
            .networks
            .values()
            .filter(there)
            .filter(begins)
            .collect();
        match found.as_slice() {
            [] => Err(NetworkError::NotFound(term.to_owned())),
            [entry] => Ok(entry),
            several => Err(NetworkError::Ambiguous {
                term: term.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// The names of all bridges' links.
    pub(super) fn bridges(&self) -> BTreeSet<String> {
        let bridges = self.all().filter_map(Network::bridge);
        bridges.map(|bridge| bridge.link.clone()).collect()
    }

    /// The subnets of all networks but one.
    pub(super) fn subnets_but(&self, id: &str) -> Vec<IpPrefix> {
        let others = self.all().filter(|network| network.id != id);
        let subnets = others.flat_map(|network| &network.subnets);
        subnets.map(|subnet| subnet.prefix).collect()
    }

    /// Holds the network of a new connection.
    pub(super) fn hold(&self, container: &str, endpoint: &Endpoint) -> NetworkLease {
        let holder = NetworkHolder {
            container: container.to_owned(),
            endpoint: endpoint.id.clone(),
        };
        self.leases
            .take(Claim::One(endpoint.network.clone()), holder)
    }

    /// Whether a container is in a network.
    pub(super) fn is_held(&self, id: &str) -> bool {
        self.leases.is_held(&id.to_owned())
    }

    /// The holders of a network for error texts, oldest first.
    pub(super) fn holders(&self, id: &str) -> Vec<String> {
        let holders = self.leases.holders(&id.to_owned()).into_iter();
        holders
            .map(|holder| {
                let member = self.members.get(&holder.container);
                let name = member.map_or(&holder.container, |member| &member.name);
                let digits = holder.endpoint.get(..12).unwrap_or(&holder.endpoint);
                format!("name:{name:?} id:{digits:?}")
            })
            .collect()
    }

    /// The running containers in a network: identifier, name and connection.
    pub(super) fn inside(&self, id: &str) -> impl Iterator<Item = (&str, &str, &Endpoint)> {
        let all = self.members.iter().flat_map(|(container, member)| {
            let endpoints = member.endpoints.iter();
            endpoints.map(move |endpoint| (container.as_str(), member.name.as_str(), endpoint))
        });
        all.filter(move |(.., endpoint)| endpoint.network == id)
    }

    /// The same, as owned values.
    pub(super) fn members_in(&self, id: &str) -> Vec<NetworkMember> {
        let inside = self.inside(id);
        inside
            .map(|(container, name, endpoint)| NetworkMember {
                container: container.to_owned(),
                name: name.to_owned(),
                endpoint: endpoint.clone(),
            })
            .collect()
    }

    /// The host's ends of all containers' interfaces.
    pub(super) fn host_links(&self) -> impl Iterator<Item = &str> {
        let members = self.members.values().chain(self.leaving.values());
        let endpoints = members.flat_map(|member| &member.endpoints);
        endpoints.map(|endpoint| endpoint.host_link.as_str())
    }

    /// Records again what running containers have, after a restart. Connections to unknown networks
    /// are recorded, too.
    pub(super) fn recover(&mut self, found: Vec<Recovered>) -> Vec<Recovered> {
        for one in &found {
            for endpoint in &one.endpoints {
                match self.networks.get_mut(&endpoint.network) {
                    Some(entry) => take_again(&mut entry.space, &one.name, endpoint),
                    None => {
                        tracing::warn!(
                            container = one.container,
                            network = endpoint.network,
                            "container is in a network that is gone"
                        );
                    }
                }
            }
            let ends = one.endpoints.iter();
            let member = RunningMember {
                name: one.name.clone(),
                leases: ends
                    .map(|end| (end.id.clone(), self.hold(&one.container, end)))
                    .collect(),
                endpoints: one.endpoints.clone(),
                bindings: one.bindings.clone(),
                announced: one.endpoints.iter().map(|end| end.id.clone()).collect(),
            };
            self.members.insert(one.container.clone(), member);
        }
        found
    }

    /// Records the addresses that a container requests at each start.
    pub(super) fn configure(&mut self, container: &str, connections: &[ConnectionSpec]) {
        let configured: Configured = connections
            .iter()
            .filter_map(|one| {
                let ipv4 = one.ipv4.map(IpAddr::V4);
                let addresses: Vec<_> = ipv4.into_iter().chain(one.ipv6.map(IpAddr::V6)).collect();
                (!addresses.is_empty()).then(|| (one.network.clone(), addresses))
            })
            .collect();
        match configured.is_empty() {
            true => drop(self.configured.remove(container)),
            false => drop(self.configured.insert(container.to_owned(), configured)),
        }
    }

    pub(super) fn forget(&mut self, container: &str) {
        self.configured.remove(container);
        self.previous.remove(container);
    }

    /// Remembers the automatic addresses of a container. It gets them again if they are free,
    /// because clients that look up a name only once would not find it elsewhere.
    pub(super) fn remember(&mut self, container: &str, ends: &[Endpoint]) {
        if self.previous.len() >= MOST_REMEMBERED && !self.previous.contains_key(container) {
            self.previous.pop_first();
        }
        let previous = self.previous.entry(container.to_owned()).or_default();
        for end in ends {
            let ipv4 = end.ipv4.filter(|_| end.asked.ipv4.is_none());
            let ipv6 = end.ipv6.filter(|_| end.asked.ipv6.is_none());
            let addresses = ipv4.into_iter().chain(ipv6);
            let addresses = addresses.map(|prefix| prefix.address).collect();
            previous.insert(end.network.clone(), addresses);
        }
    }

    /// The address of a family that a container had in a network.
    pub(super) fn previous(&self, container: &str, network: &str, ipv6: bool) -> Option<IpAddr> {
        let addresses = self.previous.get(container)?.get(network)?;
        addresses.iter().copied().find(|one| one.is_ipv6() == ipv6)
    }

    /// The addresses in a network that other containers request at each start.
    pub(super) fn configured_by_others(&self, network: &Network, container: &str) -> Vec<IpAddr> {
        let others = self.configured.iter().filter(|(id, _)| *id != container);
        let connections = others.flat_map(|(_, connections)| connections);
        let inside = connections.filter(|(term, _)| *term == network.name || *term == network.id);
        inside
            .flat_map(|(_, addresses)| addresses.clone())
            .collect()
    }
}

/// Records what a running container has.
fn take_again(space: &mut Space, name: &str, endpoint: &Endpoint) {
    let prefixes = [endpoint.ipv4, endpoint.ipv6];
    for prefix in prefixes.into_iter().flatten() {
        if let Err(error) = space.take(prefix.address, name) {
            tracing::error!(container = name, %error, "address of a running container");
        }
    }
}

impl Network {
    /// Whether the connection needs no network of ours: it is to `host` or `none`.
    pub(crate) const fn is_plain(&self) -> bool {
        matches!(self.driver, Driver::Host | Driver::Nothing)
    }
}
