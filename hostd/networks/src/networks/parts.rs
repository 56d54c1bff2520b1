//! The parts of the kernel that networks need. They are opened when the first network of ours is needed:
//! a host without any is left as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_blocking::blocking;
use keelson_store::{Durability, file};

use super::Inner;
use crate::NetworkError;
use crate::firewall::{self, Elements, Firewall, elements_of_endpoint, elements_of_network};
use crate::kernel::{self, Kernel};
use crate::types::{Binding, Endpoint, Network};

/// Says that it was the engine that switched forwarding on, so that the next one knows it, too.
const FORWARDING: &str = "forwarding";

/// Links and the packet filter.
pub(super) struct Parts {
    pub(super) kernel: Kernel,
    pub(super) firewall: Arc<Firewall>,
}

impl Inner {
    /// The parts, opened once: every network is made as it should be, with what running containers have.
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
                everything.merge(elements_of_endpoint(network, &member.endpoint, &bindings));
            }
        }
        let forwarding = self.switch_forwarding_on(&kernel, false).await?;
        // Drops first: nothing is forwarded to a bridge that the filter does not know.
        let firewall = blocking(move || {
            let firewall = Firewall::open(forwarding)?;
            firewall.restore(everything)?;
            Ok::<_, firewall::FirewallError>(Arc::new(firewall))
        })
        .await??;
        let has_ipv6 = networks
            .iter()
            .any(|network| network.ipv6 && network.bridge().is_some());
        if has_ipv6 {
            self.switch_forwarding_on(&kernel, true).await?;
        }
        for network in &networks {
            if let Err(error) = kernel.ensure(network).await {
                tracing::error!(network = network.name, %error, "network not set up");
            }
        }
        self.watch(&kernel, &firewall).await?;
        Ok(Parts { kernel, firewall })
    }

    /// Switches forwarding of a family on, and notes when it was off.
    pub(super) async fn switch_forwarding_on(
        &self,
        kernel: &Kernel,
        ipv6: bool,
    ) -> Result<firewall::Forwarding, NetworkError> {
        let wanted = kernel::Forwarding { ipv4: !ipv6, ipv6 };
        let enabled = kernel.enable_forwarding(wanted).await?;
        let note: PathBuf = self.run.join(FORWARDING);
        if enabled.ipv4 || enabled.ipv6 {
            write_note(&note)?;
        }
        Ok(match note.exists() {
            true => firewall::Forwarding::Only(Vec::new()),
            false => firewall::Forwarding::Others,
        })
    }

    /// Restores what somebody else takes away.
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

/// What connections add to the packet filter.
pub(super) fn elements(connections: &[(Arc<Network>, Endpoint)], bindings: &[Binding]) -> Elements {
    let mut all = Elements::default();
    for (network, endpoint) in connections {
        all.merge(elements_of_endpoint(network, endpoint, bindings));
    }
    all
}

fn write_note(path: &Path) -> Result<(), NetworkError> {
    Ok(file::write(path, b"", 0o600, Durability::Relaxed)?)
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}
