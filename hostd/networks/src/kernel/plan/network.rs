//! The link of a network on the host.

use std::net::IpAddr;

use keelson_model::ip::IpPrefix;
use keelson_model::spec::Mac;
use keelson_netlink::{Address, LinkId, NewAddress, Request, VirtualKind, VirtualLink};

use crate::kernel::marks::Owner;
use crate::kernel::settings::Setting;
use crate::{Bridge, Driver, GatewayMode, Network, Parent};

/// The protocol number of bridges' addresses (`IFA_PROTO`). It distinguishes addresses of an
/// earlier configuration from those of an operator. Neither the kernel nor routing programs use
/// this number.
pub(in crate::kernel) const PROTOCOL: u8 = 0x4b;

/// What a network needs on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) enum HostLink {
    /// A bridge.
    Bridge(BridgePlan),
    /// A parent link, on which containers' links are created.
    Parent(ParentPlan),
    /// Nothing.
    Nothing,
}

/// A bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct BridgePlan {
    /// Its name.
    pub(in crate::kernel) link: String,
    /// Its alias, if it is ours.
    pub(in crate::kernel) alias: String,
    /// Its hardware address, if it is ours.
    pub(in crate::kernel) mac: Mac,
    /// Maximum transmission unit in bytes, if one was requested.
    pub(in crate::kernel) mtu: Option<u32>,
    /// Its addresses.
    pub(in crate::kernel) addresses: Vec<IpPrefix>,
    /// Whether it has IPv6 at all.
    pub(in crate::kernel) ipv6: bool,
}

/// A parent link, on which containers' links are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct ParentPlan {
    /// Its name.
    pub(in crate::kernel) link: String,
    /// Its alias, if it is ours.
    pub(in crate::kernel) alias: String,
    /// How to create it if it does not exist.
    pub(in crate::kernel) make: Option<Make>,
    /// `macvlan` or `ipvlan`.
    pub(in crate::kernel) driver: &'static str,
}

/// How to create a parent link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) enum Make {
    /// A dummy link.
    Dummy,
    /// A VLAN of another link.
    Vlan {
        /// The other link.
        on: String,
        /// The VLAN's number.
        id: u16,
    },
}

impl HostLink {
    /// What a network needs.
    pub(in crate::kernel) fn of(network: &Network, owner: &Owner) -> Self {
        match &network.driver {
            Driver::Bridge(bridge) => Self::Bridge(BridgePlan::of(network, bridge, owner)),
            Driver::Macvlan(parent) => {
                Self::Parent(ParentPlan::of(network, parent, "macvlan", owner))
            }
            Driver::Ipvlan(parent) => {
                Self::Parent(ParentPlan::of(network, parent, "ipvlan", owner))
            }
            Driver::Host | Driver::Nothing => Self::Nothing,
        }
    }

    /// The link's name.
    pub(in crate::kernel) fn name(&self) -> Option<&str> {
        match self {
            Self::Bridge(bridge) => Some(&bridge.link),
            Self::Parent(parent) => Some(&parent.link),
            Self::Nothing => None,
        }
    }
}

impl BridgePlan {
    fn of(network: &Network, bridge: &Bridge, owner: &Owner) -> Self {
        let has_address = |address: &IpAddr| {
            let ipv6 = address.is_ipv6();
            let enabled = if ipv6 { network.ipv6 } else { network.ipv4 };
            let inhibited = !ipv6 && bridge.inhibit_ipv4;
            enabled && !inhibited && bridge.mode(ipv6) != GatewayMode::Isolated
        };
        let addresses = network.subnets.iter().filter_map(|subnet| {
            let address = subnet.gateway.filter(has_address)?;
            let length = subnet.prefix.length;
            Some(IpPrefix { address, length })
        });
        Self {
            link: bridge.link.clone(),
            alias: owner.network(&network.id),
            mac: mac(&network.id),
            mtu: bridge.mtu,
            addresses: addresses.collect(),
            ipv6: network.ipv6,
        }
    }

    /// The request that makes it.
    pub(in crate::kernel) fn create(&self) -> Request {
        Request::CreateLink(VirtualLink {
            mac: Some(self.mac),
            ..VirtualLink::new(&self.link, VirtualKind::Bridge)
        })
    }

    /// Parameters, to be set before it is switched on. Otherwise it could accept a router
    /// advertisement of a container (CVE-2020-13401).
    pub(in crate::kernel) fn settings(&self) -> Vec<Setting> {
        vec![
            Setting::of_link(true, &self.link, "accept_ra", 0),
            Setting::of_link(true, &self.link, "disable_ipv6", u8::from(!self.ipv6)),
            // Needed for ports published at 127.0.0.1.
            Setting::of_link(false, &self.link, "route_localnet", 1),
        ]
    }

    /// The requests that add its addresses and remove those of an earlier configuration. `present`:
    /// the addresses of the bridge, whose index is `index`.
    pub(in crate::kernel) fn set_addresses(&self, index: u32, present: &[Address]) -> Vec<Request> {
        let present = || present.iter().filter(|address| address.link == index);
        let stale = present().filter(|address| {
            address.protocol == PROTOCOL && !self.addresses.contains(&address.prefix)
        });
        let missing = self
            .addresses
            .iter()
            .filter(|prefix| !present().any(|address| address.prefix == **prefix));
        let removals = stale.map(|address| Request::RemoveAddress {
            link: index,
            prefix: address.prefix,
        });
        let additions = missing.map(|prefix| {
            Request::AddAddress(NewAddress {
                link: index,
                prefix: *prefix,
                protocol: PROTOCOL,
                link_local: false,
            })
        });
        removals.chain(additions).collect()
    }
}

impl ParentPlan {
    fn of<M>(network: &Network, parent: &Parent<M>, driver: &'static str, owner: &Owner) -> Self {
        let (link, make) = match &parent.link {
            Some(link) => {
                let vlan = link.vlan.clone();
                let make = vlan.map(|(on, id)| Make::Vlan { on, id });
                (link.name.clone(), make)
            }
            None => (dummy_name(&network.id), Some(Make::Dummy)),
        };
        Self {
            link,
            alias: owner.network(&network.id),
            make,
            driver,
        }
    }

    /// The request that creates it, if we create it. `on`: the index of the VLAN's link.
    pub(in crate::kernel) fn create(&self, on: u32) -> Option<Request> {
        let kind = match self.make.as_ref()? {
            Make::Dummy => VirtualKind::Dummy,
            Make::Vlan { id, .. } => VirtualKind::Vlan {
                parent: on,
                id: *id,
            },
        };
        Some(Request::CreateLink(VirtualLink::new(&self.link, kind)))
    }
}

/// Docker's name for the dummy link of a network.
fn dummy_name(network: &str) -> String {
    format!("dm-{}", network.get(..12).unwrap_or(network))
}

/// The hardware address of a network's bridge, which is always the same. So containers reach a
/// bridge that was created again at once.
fn mac(network: &str) -> Mac {
    let mut mac = [0x02; 6];
    let digits = network.as_bytes().chunks_exact(2);
    for (byte, digits) in mac.iter_mut().skip(1).zip(digits) {
        let text = str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    mac
}

/// The request that removes a link by its index.
pub(in crate::kernel) const fn remove(index: u32) -> Request {
    Request::RemoveLink(LinkId::Index(index))
}
