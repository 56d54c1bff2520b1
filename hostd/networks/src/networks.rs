//! The networks of a host: the calls that the engine and its clients use.

mod changing;
mod joining;
mod leaving;
mod member;
mod parts;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_blocking::blocking;
use keelson_model::ip::IpPrefix;
use keelson_model::spec::ConnectionSpec;
use keelson_netlink::Netlink;
use tokio::sync::{OnceCell, broadcast};

pub use member::{Member, Run};

use crate::NetworkError;
use crate::firewall::{Elements, elements_of_network};
use crate::ipam::Pools;
use crate::names::resolv_conf::ResolvConf;
use crate::names::{Names, NamesOptions};
use crate::ports::Ports;
use crate::settings::{FilterOptions, NetworkOptions, ResolverOptions};
use crate::store::{HostRoute, Store, make_directory};
use crate::types::{Network, NetworkEvent, NetworkMember, NewNetwork, Recovered};

/// The shortest prefix that is used as a network: 10.0.0.0/8, and fd00::/8 for IPv6.
const SHORTEST: u8 = 8;

/// The networks of a host. Clones share them.
///
/// Calls that are not `async` only use memory, and at most a file in the run directory, which is in
/// memory, too.
#[derive(Debug, Clone)]
pub struct Networks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    engine: String,
    filter: FilterOptions,
    /// Where it is kept what running containers have.
    run: PathBuf,
    /// Opened at the first use.
    parts: OnceCell<parts::Parts>,
    ports: Ports,
    names: Names,
    seats: Arc<joining::Seats>,
    pruning: AtomicBool,
}

/// A new network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedNetwork {
    /// The network.
    pub network: Arc<Network>,
    /// Requested options that have no effect, one sentence each.
    pub warnings: Vec<String>,
}

impl Networks {
    /// Opens the networks of a host, and reads what running containers have in them
    /// ([`Networks::recovered`]).
    ///
    /// # Errors
    /// A directory can't be made or read, or an option of the default bridge network is wrong.
    pub async fn open(options: NetworkOptions) -> Result<Self, NetworkError> {
        // Nothing else needs a subnet when networks are opened.
        let routes = match options.default_bridge {
            Some(_) => host_routes().await,
            None => Vec::new(),
        };
        make_directory(&options.resolver.run)?;
        let seats = Arc::<joining::Seats>::default();
        let names = open_names(options.resolver.clone(), Arc::clone(&seats));
        let (engine, run) = (options.engine.clone(), options.run.clone());
        let filter = options.filter;
        let store = blocking(move || Store::open(options, &routes)).await??;
        let inner = Arc::new(Inner {
            store: Arc::new(store),
            engine,
            filter,
            run,
            parts: OnceCell::new(),
            ports: Ports::new(),
            names,
            seats,
            pruning: AtomicBool::new(false),
        });
        if inner.store.list().iter().any(|network| !network.is_plain()) {
            // In the background: the API need not wait for it, only callers that need a network.
            let opening = Arc::clone(&inner);
            tokio::spawn(async move {
                if let Err(error) = opening.parts().await {
                    tracing::error!(%error, "networks of containers not set up; tried again when one is needed");
                }
            });
        }
        Ok(Self(inner))
    }

    /// Creates a network. It is visible when this returns, and not earlier. The work continues if
    /// the caller stops waiting.
    ///
    /// # Errors
    /// The name is taken or not allowed, the driver or an option does not exist, there are no such
    /// subnets, or the disk or the kernel fails. Nothing of it remains.
    pub async fn create(&self, new: NewNetwork) -> Result<CreatedNetwork, NetworkError> {
        let networks = self.clone();
        whole(async move { networks.create_whole(new).await }).await
    }

    async fn create_whole(&self, new: NewNetwork) -> Result<CreatedNetwork, NetworkError> {
        let routes = host_routes().await;
        let made = self.work(move |store| store.begin(new, &routes)).await??;
        let network = Arc::clone(&made.network);
        if let Err(error) = self.0.set_up(&network).await {
            self.0.take_down(&network).await;
            self.work(move |store| store.abandon(&network.id)).await?;
            return Err(error);
        }
        self.0.store.publish(&made.network.id);
        Ok(CreatedNetwork {
            network: made.network,
            warnings: made.warnings,
        })
    }

    /// Removes a network. The work continues if the caller stops waiting.
    ///
    /// # Errors
    /// The network does not exist or is predefined, containers are in it, or the disk or
    /// the kernel fails.
    pub async fn remove(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        let (networks, term) = (self.clone(), term.to_owned());
        whole(async move { networks.remove_whole(&term).await }).await
    }

    async fn remove_whole(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        let network = self.0.store.begin_removal(term)?;
        self.0.take_down(&network).await;
        let id = network.id.clone();
        if let Err(error) = self.work(move |store| store.finish_removal(&id)).await? {
            // The network exists as before.
            self.0.set_up(&network).await?;
            return Err(error);
        }
        Ok(network)
    }

    /// Removes the networks that `wanted` selects and in which no container runs. Returns their
    /// names.
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
                // It was used or removed meanwhile.
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

    /// Whether there is a default network.
    pub fn has_default_bridge(&self) -> bool {
        let list = self.0.store.list();
        list.iter()
            .any(|network| network.predefined && network.bridge().is_some())
    }

    /// The pools of automatic subnets.
    pub fn pools(&self) -> &Pools {
        self.0.store.pools()
    }

    /// Events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<NetworkEvent> {
        self.0.store.subscribe()
    }

    /// Returns what running containers had when the networks were opened. Later calls return
    /// nothing. Who knows that a container does not run any more calls [`Networks::leave`].
    pub fn recovered(&self) -> Vec<Recovered> {
        self.0.store.recovered()
    }

    /// The running containers in a network of this identifier.
    pub fn endpoints_in(&self, network: &str) -> Vec<NetworkMember> {
        self.0.store.endpoints_in(network)
    }

    /// Records what a container will request at each start. Other containers get these addresses
    /// only when no others are free.
    pub fn configure(&self, container: &str, connections: &[ConnectionSpec]) {
        self.0.store.configure(container, connections);
    }

    /// Forgets a container that was removed.
    pub fn forget(&self, container: &str) {
        self.0.store.forget(container);
    }

    /// Checks that a connection fits its network, which must exist. Returns the network.
    ///
    /// # Errors
    /// [`NetworkError::NotFound`] and the like, [`NetworkError::Endpoint`].
    pub fn check(&self, connection: &ConnectionSpec) -> Result<Arc<Network>, NetworkError> {
        self.0.store.check(connection)
    }

    /// Other packet filters on this host that drop packets which ours accepts, a sentence for each.
    pub fn warnings(&self) -> Vec<String> {
        let Some(parts) = self.0.parts.get() else {
            return Vec::new();
        };
        parts.firewall.warnings().unwrap_or_else(|error| {
            tracing::warn!(%error, "packet filters of others not looked at");
            Vec::new()
        })
    }

    /// The host's parsed resolv.conf.
    pub fn host_resolv_conf(&self) -> ResolvConf {
        self.0.names.host()
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

impl Inner {
    /// Creates a network in the kernel: first its protection in the packet filter, then its link.
    async fn set_up(self: &Arc<Self>, network: &Network) -> Result<(), NetworkError> {
        let parts = self.parts().await?;
        let elements = elements_of_network(network);
        parts.filter(elements, Elements::default()).await?;
        if parts::forwards_ipv6(network) {
            self.forward_ipv6(parts).await?;
        }
        Ok(parts.kernel.ensure(network).await?)
    }

    /// Removes a network from the kernel. Whatever can't be removed is swept by a later start.
    async fn take_down(self: &Arc<Self>, network: &Network) {
        let down = async {
            let parts = self.parts().await?;
            parts.kernel.remove(network).await?;
            let elements = elements_of_network(network);
            parts.filter(Elements::default(), elements).await
        };
        if let Err(error) = down.await {
            tracing::warn!(network = network.name, %error, "network not wholly removed");
        }
    }
}

/// Starts to serve names. If a resolver has lost its sockets, it gets new ones from the container's
/// namespace.
fn open_names(options: ResolverOptions, seats: Arc<joining::Seats>) -> Names {
    Names::open(NamesOptions {
        program: options.program,
        run: options.run,
        cgroup: options.cgroup,
        resolv_conf: options.resolv_conf,
        reopen: Arc::new(move |container, before| match seats.pid(container) {
            Some(pid) => joining::serve_names_of(pid, before),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }),
    })
}

/// Does work that must not be left half-done if the caller stops waiting.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, NetworkError>> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::spawn(work)
        .await
        .map_err(keelson_blocking::TaskDied::from)?
}

/// Prevents a second prune while it exists.
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

/// The networks that the host reaches without a router. They may change at any time, so they are
/// read whenever a subnet is chosen. If they can't be read, the choice is made without them.
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

/// Whether a route leads to a network on a link. A VPN that replaces the default route has routes
/// to half of the Internet, which do not count.
const fn is_network(destination: IpPrefix) -> bool {
    destination.length >= SHORTEST
}

#[cfg(test)]
mod tests;
