//! Networks in the kernel: bridges and other links of the host, and the interfaces of containers.
//!
//! - [`marks`]: how links are recognised as ours.
//! - [`settings`]: kernel parameters.
//! - [`plan`]: what networks and endpoints need, as values.
//! - [`host`]: the links of networks on the host.
//! - [`namespace`]: the network namespaces of containers.
//! - [`announce`]: packets that tell neighbours of an interface. [`announcer`]: when they are sent.
//! - [`attach`]: the interfaces of containers.
//! - [`forwarding`]: forwarding between links of the host.
//! - [`watch`]: links that somebody else removes.
//! - [`error`]: what the kernel refuses.
//!
//! Everything can be done again: the second time changes nothing.

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
    /// For what a container's start waits for. Nothing it does takes longer than a millisecond,
    /// unless others keep the kernel's one lock of links.
    worker: Arc<Worker>,
    /// For what is removed, which waits for RCU grace periods.
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

    /// Makes the link of a network on the host, as it is described. One that is there already is
    /// adopted, and one that somebody else made is not removed later. When it fails, nothing is
    /// left that was not there before.
    pub(crate) async fn ensure(&self, network: &Network) -> Result<(), KernelError> {
        let plan = HostLink::of(network, &self.owner);
        let ensure = move |site: &mut Site| host::ensure(&mut site.batches, &plan);
        if let Some(link) = self.worker.run(ensure).await?? {
            self.present.insert(&network.id, link.index);
        }
        Ok(())
    }

    /// Makes the link of a network that vanished, and the links of living containers its ports
    /// again.
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

    /// Removes the link of a network, if it is one that was made for it.
    pub(crate) async fn remove(&self, network: &Network) -> Result<(), KernelError> {
        self.present.remove(&network.id);
        let plan = HostLink::of(network, &self.owner);
        let removed = self
            .background
            .run(move |site| host::remove_link(&mut site.batches, &plan));
        removed.await?
    }

    /// Makes the interfaces of a container in its namespace, with addresses and default routes, and
    /// announces them. Then `inside` is run on a thread that is in the namespace, before this
    /// returns: what else has to be opened there, such as sockets; it must not block.
    ///
    /// When a container that runs is connected to a further network, the default routes have to be
    /// set anew afterwards.
    ///
    /// When it fails, none of these interfaces is left. A caller that stops waiting does not stop it:
    /// then the endpoints have to be detached.
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

    /// Removes an interface of a container. Nothing is sent or received by it when this returns,
    /// so its addresses can be given to others.
    ///
    /// With the namespace of a container that runs, the interface is gone then, too. Without, the
    /// container has ended: what is left of the interface ends with the namespace or is removed
    /// soon, and nobody waits for that.
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
            // The only way to it is its namespace.
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

    /// Makes the default routes of a running container those of all its endpoints: to be called
    /// after one was added or removed.
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

    /// Announces the interfaces of a container that was found running after a restart of the
    /// engine.
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
    /// `networks`: the identifiers of those that are there; `host_links`: the names of living
    /// containers' links on the host, `None`: they are not all known, so no container's is removed. The
    /// result is the names of what was removed.
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

    /// Switches forwarding of a family on, unless it is. What is not meant to be forwarded has to be
    /// dropped before.
    pub(crate) async fn enable_forwarding(&self, ipv6: bool) -> Result<(), KernelError> {
        let owner = self.owner.clone();
        let enabled = self
            .worker
            .run(move |site| forwarding::enable(&mut site.batches, &owner, ipv6));
        enabled.await?
    }

    /// Starts to notice that links of networks vanish.
    pub(crate) async fn watch(&self) -> Result<Watch, KernelError> {
        // Opened on the worker, which is in the right namespace.
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
