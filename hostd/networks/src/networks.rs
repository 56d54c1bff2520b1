//! The networks of a host: the calls that the engine and its clients use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_blocking::blocking;
use keelson_model::ip::IpPrefix;
use keelson_model::spec::ConnectionSpec;
use keelson_netlink::Netlink;
use tokio::sync::broadcast;

use crate::NetworkError;
use crate::ipam::Pools;
use crate::settings::NetworkOptions;
use crate::store::{HostRoute, Store};
use crate::types::{
    Binding, Endpoint, Network, NetworkEvent, NetworkMember, NewNetwork, Recovered,
};

/// The least length of a prefix that somebody uses as a network: 10.0.0.0/8, and fd00::/8 in IPv6.
const SHORTEST: u8 = 8;

/// The networks of a host. Clones share them.
///
/// Calls that are not `async` touch memory, and at most a file in the run directory, which is in
/// memory, too.
#[derive(Debug, Clone)]
pub struct Networks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    pruning: AtomicBool,
}

/// A network that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The network.
    pub network: Arc<Network>,
    /// What was asked for and has no effect, one sentence each.
    pub warnings: Vec<String>,
}

impl Networks {
    /// Opens the networks of a host, with what running containers have in them
    /// ([`Networks::recovered`]).
    ///
    /// # Errors
    /// A directory can't be made or read, or an option of the default bridge network is wrong.
    pub async fn open(options: NetworkOptions) -> Result<Self, NetworkError> {
        let routes = host_routes().await;
        let store = blocking(move || Store::open(options, &routes)).await??;
        // The kernel's part: the links and the packet filter of every network are made here, or found as
        // they should be; those of networks that are gone are removed.
        Ok(Self(Arc::new(Inner {
            store: Arc::new(store),
            pruning: AtomicBool::new(false),
        })))
    }

    /// Makes a network. It is there when this returns, and not seen before. The work goes on when the
    /// caller goes away.
    ///
    /// # Errors
    /// The name is taken or not allowed, the driver or an option does not exist, there are no such
    /// subnets, or the disk or the kernel fails. Nothing of it remains.
    pub async fn create(&self, new: NewNetwork) -> Result<Created, NetworkError> {
        let networks = self.clone();
        whole(async move { networks.create_whole(new).await }).await
    }

    async fn create_whole(&self, new: NewNetwork) -> Result<Created, NetworkError> {
        let routes = host_routes().await;
        let made = self.work(move |store| store.begin(new, &routes)).await??;
        // The kernel's part: the link and the packet filter of `made.network`. When it fails it undoes what
        // it did, and `Store::abandon` follows.
        self.0.store.publish(&made.network.id);
        Ok(Created {
            network: made.network,
            warnings: made.warnings,
        })
    }

    /// Removes a network. The work goes on when the caller goes away.
    ///
    /// # Errors
    /// There is none, every engine has it, containers are in it, or the disk or the kernel fails.
    pub async fn remove(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        let (networks, term) = (self.clone(), term.to_owned());
        whole(async move { networks.remove_whole(&term).await }).await
    }

    async fn remove_whole(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        let network = self.0.store.begin_removal(term)?;
        // The kernel's part: the link and the packet filter of `network` are removed. When it fails,
        // `Store::give_up_removal` follows.
        let id = network.id.clone();
        self.work(move |store| store.finish_removal(&id)).await??;
        Ok(network)
    }

    /// Removes the networks that no running container is in and that `wanted` chooses. Returns their names.
    ///
    /// # Errors
    /// [`NetworkError::Pruning`].
    pub async fn prune(
        &self,
        wanted: impl Fn(&Network) -> bool + Send,
    ) -> Result<Vec<String>, NetworkError> {
        let _pruning = Pruning::begin(&self.0.pruning)?;
        let mut names = Vec::new();
        let mut unused = self.0.store.unused();
        unused.retain(|network| wanted(network));
        for network in unused {
            match self.remove(&network.id).await {
                Ok(_) => names.push(network.name.clone()),
                // Used or removed by others meanwhile.
                Err(NetworkError::InUse { .. } | NetworkError::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(name = network.name, %error, "network not removed");
                }
            }
        }
        self.0.store.emit_prune();
        Ok(names)
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<Arc<Network>> {
        self.0.store.list()
    }

    /// A network by its identifier, its name, or the beginning of its identifier, in this order.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`], [`NetworkError::Ambiguous`].
    pub fn find(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        self.0.store.find(term)
    }

    /// Whether there is a network for containers that name none.
    pub fn has_default_bridge(&self) -> bool {
        let list = self.0.store.list();
        list.iter()
            .any(|network| network.predefined && network.bridge().is_some())
    }

    /// From where subnets are taken that nobody asked for.
    pub fn pools(&self) -> &Pools {
        self.0.store.pools()
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<NetworkEvent> {
        self.0.store.subscribe()
    }

    /// What running containers had when the networks were opened. It is told once. Who knows that a
    /// container does not run any more calls [`Networks::release_all`].
    pub fn recovered(&self) -> Vec<Recovered> {
        self.0.store.recovered()
    }

    /// Gives a container what it needs for its connections: addresses, a hardware address, and names for
    /// the two ends of each interface. At its start these are all connections, the main one first;
    /// while it runs, further ones. It is written down before this returns. Afterwards the default
    /// routes of older connections may lead elsewhere: see [`Networks::endpoints_of`].
    ///
    /// Returns the new connections in the order of their interfaces.
    ///
    /// # Errors
    /// A network is not there, has no address left, or does not fit; the container is in it already; the
    /// disk fails. Nothing is given then.
    pub fn reserve(
        &self,
        container: &str,
        name: &str,
        connections: &[ConnectionSpec],
    ) -> Result<Vec<Endpoint>, NetworkError> {
        self.0.store.reserve(container, name, connections)
    }

    /// Tells subscribers that a connection works. They hear of its end only after this.
    pub fn announce(&self, container: &str, endpoint: &str) {
        self.0.store.announce(container, endpoint);
    }

    /// Takes a connection back, after the kernel's part of it is gone. Returns those that remain, whose
    /// default routes may have changed. Of one that is not there nothing happens.
    pub fn release(&self, container: &str, endpoint: &str) -> Vec<Endpoint> {
        self.0.store.release(container, endpoint)
    }

    /// Takes back all that a container has.
    pub fn release_all(&self, container: &str) {
        self.0.store.release_all(container);
    }

    /// Makes the IPv6 addresses of a container free: it turned out to have no IPv6. Returns its
    /// connections.
    ///
    /// # Errors
    /// The disk fails. Nothing has changed then.
    pub fn drop_ipv6(&self, container: &str) -> Result<Vec<Endpoint>, NetworkError> {
        self.0.store.drop_ipv6(container)
    }

    /// Writes down which ports of a running container are published, instead of what was known before.
    ///
    /// # Errors
    /// The disk fails. What was known before is still known then.
    pub fn set_bindings(
        &self,
        container: &str,
        name: &str,
        bindings: Vec<Binding>,
    ) -> Result<(), NetworkError> {
        self.0.store.set_bindings(container, name, bindings)
    }

    /// The published ports of a running container.
    pub fn bindings_of(&self, container: &str) -> Vec<Binding> {
        self.0.store.bindings_of(container)
    }

    /// The connections of a running container, in the order of their interfaces.
    pub fn endpoints_of(&self, container: &str) -> Vec<Endpoint> {
        self.0.store.endpoints_of(container)
    }

    /// The connection of a running container to a network.
    ///
    /// # Errors
    /// There is no such network, or the container is not in it.
    pub fn endpoint(&self, container: &str, network: &str) -> Result<Endpoint, NetworkError> {
        self.0.store.endpoint(container, network)
    }

    /// The running containers in a network of this identifier.
    pub fn endpoints_in(&self, network: &str) -> Vec<NetworkMember> {
        self.0.store.endpoints_in(network)
    }

    /// Notes that a running container has another name.
    pub fn rename(&self, container: &str, name: &str) {
        self.0.store.rename(container, name);
    }

    /// Notes what a container will ask for at each start. Other containers get these addresses only when
    /// no other is free.
    pub fn configure(&self, container: &str, connections: &[ConnectionSpec]) {
        self.0.store.configure(container, connections);
    }

    /// Forgets a container that was removed.
    pub fn forget(&self, container: &str) {
        self.0.store.forget(container);
    }

    /// Whether a connection fits to its network, which must be there. Returns the network.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`] and the like, [`NetworkError::Endpoint`].
    pub fn check(&self, connection: &ConnectionSpec) -> Result<Arc<Network>, NetworkError> {
        self.0.store.check(connection)
    }

    /// Does work on files.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, NetworkError> {
        let store = Arc::clone(&self.0.store);
        Ok(blocking(move || work(&store)).await?)
    }
}

/// Does work that must not be left half-done when the caller goes away.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, NetworkError>> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::spawn(work)
        .await
        .map_err(keelson_blocking::TaskDied::from)?
}

/// Keeps a second prune away while it exists.
struct Pruning<'a>(&'a AtomicBool);

impl<'a> Pruning<'a> {
    fn begin(pruning: &'a AtomicBool) -> Result<Self, NetworkError> {
        match pruning.swap(true, Ordering::AcqRel) {
            true => Err(NetworkError::Pruning),
            false => Ok(Self(pruning)),
        }
    }
}

impl Drop for Pruning<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The networks that the host reaches without a router. They change at any time, so they are looked at
/// whenever a subnet is chosen. When they can't be read, the choice is made without them.
async fn host_routes() -> Vec<HostRoute> {
    let read = async {
        let netlink = Netlink::connect()?;
        let links = netlink.links().await?;
        let routes = netlink.routes().await?;
        let on_link = routes
            .into_iter()
            .filter(|route| route.gateway.is_none() && is_network(route.destination));
        let named = on_link.filter_map(|route| {
            let link = links.iter().find(|link| link.index == route.link)?;
            Some(HostRoute {
                link: link.name.clone(),
                prefix: route.destination,
            })
        });
        Ok::<_, keelson_netlink::NetlinkError>(named.collect())
    };
    read.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "routes of the host not read: new subnets may be those of its links");
        Vec::new()
    })
}

/// Whether a route names a network on a link, and not half of the Internet, as a VPN does that takes the
/// place of the default route.
const fn is_network(destination: IpPrefix) -> bool {
    destination.length >= SHORTEST
}

#[cfg(test)]
mod tests;
