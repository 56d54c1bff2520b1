//! Networks in the kernel: bridges and other links of the host, and the interfaces of containers.
//!
//! - [`marks`]: how links are recognised as ours.
//! - [`settings`]: kernel parameters.
//! - [`plan`]: what networks and endpoints need, as plain values.
//! - [`host`]: the links of networks on the host.
//! - [`namespace`]: the network namespaces of containers.
//! - [`announce`]: packets that tell neighbours of an interface. [`announcer`]: when they are sent.
//! - [`attach`]: the interfaces of containers.
//! - [`forwarding`]: forwarding between links of the host.
//! - [`watch`]: notices links that somebody else removes.
//! - [`error`]: why the kernel refused something.
//!
//! Every operation can be repeated; the second time changes nothing.

use std::sync::Arc;

use keelson_netlink::{Removals, Site, Worker};
use tracing::warn;

use crate::{Endpoint, Network};

mod announce;
mod announcer;
mod attach;
mod error;
mod forwarding;
mod host;
mod marks;
mod namespace;
mod plan;
mod settings;
mod watch;

use announcer::Announcer;
pub(crate) use attach::Attached;
pub use error::KernelError;
use marks::Owner;
pub(crate) use namespace::ContainerNamespace;
use plan::endpoint::EndpointPlan;
use plan::network::HostLink;
use watch::Present;
pub(crate) use watch::Watch;

/// The kernel's network configuration in one network namespace, the host's. Clones share it.
#[derive(Clone)]
pub(crate) struct Kernel {
    owner: Owner,
    /// For work for which a container's start waits. None of it takes longer than a millisecond,
    /// unless others hold the kernel's single lock for links.
    worker: Arc<Worker>,
    /// For removals, which wait for RCU grace periods.
    background: Arc<Worker>,
    announcer: Announcer,
    present: Present,
}

impl Kernel {
    /// Works in the network namespace of the calling thread. `engine` is the engine's identifier:
    /// links of other engines are not touched.
    pub(crate) fn connect(engine: &str) -> Result<Self, KernelError> {
        Ok(Self {
            owner: Owner::new(engine),
            worker: Arc::new(Worker::start("links")?),
            background: Arc::new(Worker::start("links-removal")?),
            announcer: Announcer::new(),
            present: Present::default(),
        })
    }

    /// Creates the link of a network on the host. An existing link is adopted; one that somebody
    /// else created is not removed later. A failure leaves nothing behind.
    pub(crate) async fn ensure(&self, network: &Network) -> Result<(), KernelError> {
        let plan = HostLink::of(network, &self.owner);
        let ensure = move |site: &mut Site| host::ensure(&mut site.batches, &plan);
        if let Some(link) = self.worker.run(ensure).await?? {
            self.present.insert(&network.id, link.index);
        }
        Ok(())
    }

    /// Creates the vanished link of a network again, and makes the links of running containers its
    /// ports.
    pub(crate) async fn restore(
        &self,
        network: &Network,
        endpoints: &[Endpoint],
    ) -> Result<(), KernelError> {
        let plan = HostLink::of(network, &self.owner);
        let mut plans = Vec::new();
        for endpoint in endpoints {
            plans.extend(EndpointPlan::of(network, endpoint, 1, &self.owner)?);
        }
        let restored = self.worker.run(move |site| {
            let link = host::ensure(&mut site.batches, &plan)?;
            if let Some(link) = &link {
                attach::reattach(&mut site.batches, link.index, &plans)?;
            }
            Ok::<_, KernelError>(link)
        });
        if let Some(link) = restored.await?? {
            self.present.insert(&network.id, link.index);
        }
        Ok(())
    }

    /// Removes the link of a network, if it was created for it.
    pub(crate) async fn remove(&self, network: &Network) -> Result<(), KernelError> {
        self.present.remove(&network.id);
        let plan = HostLink::of(network, &self.owner);
        let removed = self
            .background
            .run(move |site| host::remove_link(&mut site.batches, &plan));
        removed.await?
    }

    /// Creates the interfaces of a container in its namespace, with addresses and default routes,
    /// and announces them. Then runs `inside` on a thread that is in the namespace, to open other
    /// things there, such as sockets. `inside` must not block.
    ///
    /// After a running container was connected to a further network, the caller must set its
    /// default routes again.
    ///
    /// A failure leaves none of these interfaces. If the caller stops waiting, the work continues;
    /// the endpoints must be detached then.
    pub(crate) async fn attach<T: Send + 'static>(
        &self,
        namespace: &ContainerNamespace,
        connections: &[(&Network, &Endpoint)],
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Attached<T>, KernelError> {
        let plans = self.plans(connections)?;
        let namespace = namespace.clone();
        let attached = self
            .worker
            .run(move |site| attach::attach(site, &namespace, &plans, inside));
        let (attached, announcements) = attached.await??;
        for announcement in announcements {
            self.announcer.begin(announcement, &self.worker);
        }
        Ok(attached)
    }

    /// Removes an interface of a container. When this returns, nothing is sent or received by it,
    /// so its addresses can be given to others.
    ///
    /// If the namespace of a running container is given, the interface is removed, too. Otherwise
    /// the container has ended: the interface ends with the namespace or is removed soon, and
    /// nobody waits for that.
    pub(crate) async fn detach(
        &self,
        network: &Network,
        endpoint: &Endpoint,
        namespace: Option<&ContainerNamespace>,
    ) -> Result<(), KernelError> {
        self.announcer.end(&endpoint.id);
        let Some(plan) = EndpointPlan::of(network, endpoint, 1, &self.owner)? else {
            return Ok(());
        };
        if plan.host_link().is_none() {
            // It can only be reached through its namespace.
            let Some(namespace) = namespace.cloned() else {
                return Ok(());
            };
            let removed = self
                .background
                .run(move |site| attach::detach_inside(site, &namespace, &plan));
            return removed.await?;
        }
        let cut = self
            .worker
            .run(move |site| attach::cut(&mut site.batches, &plan));
        let Some(index) = cut.await?? else {
            return Ok(());
        };
        let background = Arc::clone(&self.background);
        let removal = async move {
            let removed = background.run(move |site| attach::remove_cut(&mut site.batches, index));
            removed.await?
        };
        if namespace.is_some() {
            return removal.await;
        }
        tokio::spawn(async move {
            if let Err(error) = removal.await {
                // The next sweep tries again.
                warn!(index, %error, "the link of a container that ended is left");
            }
        });
        Ok(())
    }

    /// Sets the default routes of a running container by all of its endpoints. Call this after an
    /// endpoint was added or removed.
    pub(crate) async fn set_default_routes(
        &self,
        namespace: &ContainerNamespace,
        connections: &[(&Network, &Endpoint)],
    ) -> Result<(), KernelError> {
        let plans = self.plans(connections)?;
        let namespace = namespace.clone();
        let set = self
            .worker
            .run(move |site| attach::set_default_routes(site, &namespace, &plans));
        set.await?
    }

    /// Announces the interfaces of a container that still ran when the engine restarted.
    pub(crate) async fn announce(
        &self,
        namespace: &ContainerNamespace,
        connections: &[(&Network, &Endpoint)],
    ) -> Result<(), KernelError> {
        let plans = self.plans(connections)?;
        let namespace = namespace.clone();
        let opened = self
            .worker
            .run(move |site| attach::announcements(site, &namespace, &plans));
        for announcement in opened.await?? {
            self.announcer.begin(announcement, &self.worker);
        }
        Ok(())
    }

    /// Removes links that this engine made for networks and endpoints that are not there any more.
    /// `networks`: the identifiers of existing networks; `host_links`: the names of living
    /// containers' links on the host, `None`: they are not all known, so no container's link is
    /// removed. Returns the names of the removed links.
    pub(crate) async fn sweep(
        &self,
        networks: Vec<String>,
        host_links: Option<Vec<String>>,
    ) -> Result<Vec<String>, KernelError> {
        let owner = self.owner.clone();
        let swept = self.background.run(move |site| {
            host::sweep(&mut site.batches, &owner, &networks, host_links.as_deref())
        });
        swept.await?
    }

    /// Whether forwarding of a family is off.
    pub(crate) async fn is_forwarding_off(&self, ipv6: bool) -> Result<bool, KernelError> {
        Ok(self.worker.run(move |_| forwarding::is_off(ipv6)).await?)
    }

    /// Switches on forwarding of a family, if it is off. Before that, the packet filter must drop
    /// packets that should not be forwarded.
    pub(crate) async fn enable_forwarding(&self, ipv6: bool) -> Result<(), KernelError> {
        let owner = self.owner.clone();
        let enabled = self
            .worker
            .run(move |site| forwarding::enable(&mut site.batches, &owner, ipv6));
        enabled.await?
    }

    /// Starts to notice that links of networks vanish.
    pub(crate) async fn watch(&self) -> Result<Watch, KernelError> {
        // Opened by the worker thread, which is in the right namespace.
        let runtime = tokio::runtime::Handle::current();
        let opened = self.worker.run(move |_| {
            let _runtime = runtime.enter();
            Removals::open()
        });
        Ok(Watch {
            removals: opened.await??,
            present: self.present.clone(),
        })
    }

    fn plans(
        &self,
        connections: &[(&Network, &Endpoint)],
    ) -> Result<Vec<EndpointPlan>, KernelError> {
        let endpoints = connections.len();
        let plans = connections
            .iter()
            .map(|(network, endpoint)| EndpointPlan::of(network, endpoint, endpoints, &self.owner));
        plans.filter_map(Result::transpose).collect()
    }
}

#[cfg(test)]
mod tests;
