//! The parts of the kernel that networks need. They are opened when the first network is needed; a
//! host without networks is not changed.

use std::path::PathBuf;
use std::sync::Arc;

use keelson_blocking::blocking;
use keelson_store::{Durability, file};

use super::Inner;
use crate::NetworkError;
use crate::firewall::{
    Elements, Firewall, FirewallError, Transit, elements_of_endpoint, elements_of_network,
};
use crate::kernel::Kernel;
use crate::types::{Binding, Endpoint, Network};

/// Files that record that the engine switches on forwarding of a family, for later engines.
const FORWARDING_IPV4: &str = "forwarding-ipv4";
const FORWARDING_IPV6: &str = "forwarding-ipv6";

/// Links and the packet filter.
pub(super) struct Parts {
    pub(super) kernel: Kernel,
    pub(super) firewall: Arc<Firewall>,
}

impl Inner {
    /// Returns the parts. Opens them once, and restores every network, with what running containers
    /// have.
    pub(super) async fn parts(self: &Arc<Self>) -> Result<&Parts, NetworkError> {
        self.parts.get_or_try_init(|| self.open_parts()).await
    }

    async fn open_parts(self: &Arc<Self>) -> Result<Parts, NetworkError> {
        let kernel = Kernel::connect(&self.engine)?;
        let networks = self.store.list();
        let mut everything = Elements::default();
        for network in &networks {
            everything.merge(elements_of_network(network));
            for member in self.store.endpoints_in(&network.id) {
                let bindings = self.store.bindings_of(&member.container);
                let direct = self.filter.direct_routing;
                let of_one = elements_of_endpoint(network, &member.endpoint, &bindings, direct);
                everything.merge(of_one);
            }
        }
        let forwards_ipv6 = networks.iter().any(|network| forwards_ipv6(network));
        let transit = Transit {
            drop_ipv4: self.claims_forwarding(&kernel, false, true).await?,
            drop_ipv6: self.claims_forwarding(&kernel, true, forwards_ipv6).await?,
            between: Vec::new(),
        };
        // Drops first: nothing is forwarded that the filter does not know.
        let options = self.filter;
        let firewall = blocking(move || {
            let firewall = Firewall::open(transit, options)?;
            firewall.restore(everything)?;
            Ok::<_, FirewallError>(Arc::new(firewall))
        })
        .await??;
        kernel.enable_forwarding(false).await?;
        if forwards_ipv6 {
            kernel.enable_forwarding(true).await?;
        }
        self.sweep(&kernel).await;
        for network in &networks {
            if let Err(error) = kernel.ensure(network).await {
                tracing::error!(network = network.name, %error, "network not set up");
            }
        }
        self.watch(&kernel, &firewall).await?;
        Ok(Parts { kernel, firewall })
    }

    /// Removes links that an earlier engine has left. No link is created meanwhile, because that
    /// needs the parts.
    async fn sweep(&self, kernel: &Kernel) {
        let networks = self.store.list().into_iter();
        let networks = networks.map(|network| network.id.clone()).collect();
        match kernel.sweep(networks, self.store.host_links()).await {
            Ok(swept) if swept.is_empty() => {}
            Ok(swept) => tracing::info!(?swept, "unused links removed"),
            Err(error) => tracing::warn!(%error, "unused links can't be searched"),
        }
    }

    /// Switches on IPv6 forwarding. Before that, packets that do not belong to containers are
    /// dropped.
    pub(super) async fn forward_ipv6(&self, parts: &Parts) -> Result<(), NetworkError> {
        if self.claims_forwarding(&parts.kernel, true, true).await? {
            let firewall = Arc::clone(&parts.firewall);
            blocking(move || firewall.drop_transit(true)).await??;
        }
        Ok(parts.kernel.enable_forwarding(true).await?)
    }

    /// Whether the engine forwards a family: an earlier one has recorded it, or it is `wanted` and
    /// off. This is recorded before anything is switched on: after a crash in between, the next
    /// engine must not conclude that somebody else wants a router.
    async fn claims_forwarding(
        &self,
        kernel: &Kernel,
        ipv6: bool,
        wanted: bool,
    ) -> Result<bool, NetworkError> {
        let note: PathBuf = self.run.join(match ipv6 {
            false => FORWARDING_IPV4,
            true => FORWARDING_IPV6,
        });
        if note.exists() {
            return Ok(true);
        }
        let claims = wanted && kernel.is_forwarding_off(ipv6).await?;
        if claims {
            file::write(&note, b"", 0o600, Durability::Relaxed)?;
        }
        Ok(claims)
    }

    /// Restores what somebody else removes.
    async fn watch(
        self: &Arc<Self>,
        kernel: &Kernel,
        firewall: &Arc<Firewall>,
    ) -> Result<(), NetworkError> {
        let filter = Arc::clone(firewall);
        tokio::spawn(async move {
            if let Err(error) = filter.watch().await {
                tracing::error!(%error, "changes of the packet filter are not noticed any more");
            }
        });
        let mut links = kernel.watch().await?;
        let (inner, kernel) = (Arc::downgrade(self), kernel.clone());
        tokio::spawn(async move {
            loop {
                let vanished = match links.vanished().await {
                    Ok(vanished) => vanished,
                    Err(error) => {
                        tracing::error!(%error, "removals of links are not noticed any more");
                        return;
                    }
                };
                let Some(inner) = inner.upgrade() else { return };
                for id in vanished {
                    inner.restore_link(&kernel, &id).await;
                }
            }
        });
        Ok(())
    }

    /// What connections add to the packet filter.
    pub(super) fn elements(
        &self,
        connections: &[(Arc<Network>, Endpoint)],
        bindings: &[Binding],
    ) -> Elements {
        let mut all = Elements::default();
        for (network, endpoint) in connections {
            let direct = self.filter.direct_routing;
            all.merge(elements_of_endpoint(network, endpoint, bindings, direct));
        }
        all
    }

    async fn restore_link(&self, kernel: &Kernel, id: &str) {
        let Ok(network) = self.store.find(id) else {
            return;
        };
        let members = self.store.endpoints_in(id).into_iter();
        let endpoints: Vec<Endpoint> = members.map(|member| member.endpoint).collect();
        match kernel.restore(&network, &endpoints).await {
            Ok(()) => tracing::warn!(network = network.name, "link vanished: made again"),
            Err(error) => {
                tracing::error!(network = network.name, %error, "link vanished, and is not made again");
            }
        }
    }
}

impl Parts {
    /// Changes the packet filter.
    pub(super) async fn filter(&self, add: Elements, remove: Elements) -> Result<(), NetworkError> {
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let firewall = Arc::clone(&self.firewall);
        Ok(blocking(move || firewall.apply(&add, &remove)).await??)
    }
}

/// Whether packets of IPv6 have to be forwarded for a network.
pub(super) fn forwards_ipv6(network: &Network) -> bool {
    network.ipv6 && network.bridge().is_some()
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}
