//! The predefined networks, which every engine has: `bridge`, `host` and `none`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_model::ip::IpPrefix;
use sha2::{Digest, Sha256};

use super::state::State;
use super::{HostRoute, Store};
use crate::NetworkError;
use crate::ipam::{SubnetRequest, allocate_subnets, overlap};
use crate::options::{self, Asked};
use crate::settings::DefaultBridge;
use crate::types::{Addressing, AskedSubnet, Driver, Network};

/// The default bridge network.
pub(super) const BRIDGE: &str = "bridge";
const HOST: &str = "host";
const NONE: &str = "none";

/// Names that no other network may have: those of networks, and of network modes.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(name, BRIDGE | HOST | NONE | "default") || name.starts_with("container:")
}

/// The identifier of a predefined network. It depends only on the engine's identifier.
pub(super) fn id(name: &str, engine: &str) -> String {
    hex::encode(Sha256::digest(format!("network {name} of {engine}")))
}

/// The year 1, which Docker shows for an unknown time.
fn never() -> Timestamp {
    "0001-01-01T00:00:00Z"
        .parse()
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `host` and `none`, which have no document.
pub(super) fn plain(engine: &str) -> [Network; 2] {
    let network = |name: &str, driver: Driver, ipv4| Network {
        id: id(name, engine),
        name: name.to_owned(),
        created: never(),
        driver,
        internal: false,
        attachable: false,
        ipv4,
        ipv6: false,
        subnets: Vec::new(),
        asked: Addressing::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: true,
        unreadable: None,
    };
    [
        network(HOST, Driver::Host, true),
        network(NONE, Driver::Nothing, false),
    ]
}

impl Store {
    /// Brings the default bridge network to the configured options. Its subnet stays the same,
    /// because clients and operators rely on it. It changes only with the options, or if another
    /// link of the host now leads to it, and never while containers are in it. If no subnet is
    /// free, there is no default bridge network.
    pub(super) fn open_default_bridge(
        &self,
        wanted: Option<&DefaultBridge>,
        routes: &[HostRoute],
    ) -> Result<(), NetworkError> {
        let id = id(BRIDGE, &self.engine);
        let mut state = self.state();
        let known = state.network(&id).map(|entry| Arc::clone(&entry.network));
        let in_use = state.is_held(&id);
        let Some(wanted) = wanted else {
            if known.is_some() && !in_use {
                state.remove(&id);
            } else if known.is_some() {
                tracing::warn!(
                    "containers are in the default bridge network: it stays until they end"
                );
            }
            return Ok(());
        };
        let mut network = wanted.network(&id)?;
        let unreadable = known.as_ref().and_then(|known| known.unreadable.clone());
        let known = known.filter(|known| known.unreadable.is_none());
        let on_link = own_routes_left_out(&state, routes);
        let kept = known.as_ref().filter(|known| {
            let same = known.asked == network.asked && known.ipv6 == network.ipv6;
            let elsewhere = on_link.iter().any(|route| {
                let mut subnets = known.subnets.iter();
                subnets.any(|subnet| overlap(subnet.prefix, *route))
            });
            if in_use && (!same || elsewhere) {
                tracing::warn!("containers are in the default bridge network: it keeps its subnet");
            }
            in_use || (same && !elsewhere)
        });
        let allocated = match kept {
            Some(_) => None,
            None => {
                let request = SubnetRequest {
                    asked: &network.asked,
                    ipv4: true,
                    ipv6: network.ipv6,
                    gateway_ipv4: true,
                    gateway_ipv6: true,
                    one_each: true,
                    taken: &state.subnets_but(&id),
                    on_link: &on_link,
                    pools: &self.pools,
                };
                let allocated = allocate_subnets(request);
                allocated
                    .inspect_err(|error| {
                        tracing::error!(%error, "the default bridge network gets no new subnet");
                    })
                    .ok()
            }
        };
        match (allocated, &known) {
            (Some(allocated), _) => network.subnets = allocated.subnets,
            (None, Some(known)) => {
                network.subnets.clone_from(&known.subnets);
                network.asked.clone_from(&known.asked);
                network.ipv6 = known.ipv6;
            }
            // An operator who can reach the API can repair this, so everything else must work
            // without it.
            (None, None) => return Ok(()),
        }
        if let Some(known) = &known {
            network.created = known.created;
        }
        match unreadable {
            // A newer engine may be able to read it. Until then the network is only in memory.
            Some(error) => {
                tracing::error!(
                    error,
                    "default bridge network can't be read; it is not kept"
                );
            }
            None if known.as_deref() == Some(&network) => {}
            None => self.keep(&network)?,
        }
        state.replace(network);
        Ok(())
    }
}

/// The networks that the host reaches through other links than ours.
pub(super) fn own_routes_left_out(state: &State, routes: &[HostRoute]) -> Vec<IpPrefix> {
    let own = state.bridges();
    let others = routes.iter().filter(|route| !own.contains(&route.link));
    others.map(|route| route.prefix).collect()
}

impl DefaultBridge {
    /// The network without its subnets.
    fn network(&self, id: &str) -> Result<Network, NetworkError> {
        let options = options::of_default_bridge(self);
        let understood = options::read(Asked {
            id,
            driver: BRIDGE,
            options: &options,
            internal: false,
            of_engine: true,
        })?;
        if let Some(problem) = understood.problems.into_iter().next() {
            return Err(problem.into());
        }
        let families = [
            (self.address, self.range),
            (self.address_ipv6, self.range_ipv6),
        ];
        let subnets = families.into_iter().filter_map(|(address, range)| {
            let address = address?;
            Some(AskedSubnet {
                subnet: crate::ipam::masked(address).to_string(),
                range: range.map(|range| range.to_string()).unwrap_or_default(),
                gateway: address.address.to_string(),
                ..AskedSubnet::default()
            })
        });
        Ok(Network {
            id: id.to_owned(),
            name: BRIDGE.to_owned(),
            created: Timestamp::now(),
            driver: understood.driver,
            internal: false,
            attachable: false,
            ipv4: true,
            ipv6: self.ipv6 || self.address_ipv6.is_some(),
            subnets: Vec::new(),
            asked: Addressing {
                subnets: subnets.collect(),
                ..Addressing::default()
            },
            options,
            labels: BTreeMap::new(),
            predefined: true,
            unreadable: None,
        })
    }
}
