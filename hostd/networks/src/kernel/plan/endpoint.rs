//! An endpoint's links, addresses and parameters.

use std::net::IpAddr;

use keelson_model::ip::IpPrefix;
use keelson_model::spec::Mac;
use keelson_netlink::{
    BridgePort, Ipvlan, IpvlanIsolation, LinkChange, LinkId, Macvlan, NewAddress, Request,
    VirtualKind, VirtualLink,
};

use crate::kernel::KernelError;
use crate::kernel::marks::Owner;
use crate::kernel::plan::network::HostLink;
use crate::kernel::plan::routes::{DefaultRoute, default_routes};
use crate::kernel::settings::Setting;
use crate::{Bridge, Driver, Endpoint, IpvlanFlag, IpvlanMode, MacvlanMode, Network};

/// What an endpoint needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct EndpointPlan {
    /// The endpoint's identifier.
    pub(in crate::kernel) id: String,
    /// The network's link.
    pub(in crate::kernel) on: HostLink,
    /// How to create the interface.
    pub(in crate::kernel) attachment: Attachment,
    /// The interface's name.
    pub(in crate::kernel) interface: String,
    /// The interface's hardware address, if it has one of its own.
    pub(in crate::kernel) mac: Option<Mac>,
    /// Maximum transmission unit in bytes, if one was requested.
    pub(in crate::kernel) mtu: Option<u32>,
    /// The interface's addresses.
    pub(in crate::kernel) addresses: Vec<IpPrefix>,
    /// Link-local addresses.
    pub(in crate::kernel) link_local: Vec<IpPrefix>,
    /// The interface's parameters, in their order.
    pub(in crate::kernel) settings: Vec<Setting>,
    /// Default routes through it.
    pub(in crate::kernel) routes: Vec<DefaultRoute>,
}

/// How to create an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) enum Attachment {
    /// The end of a pair whose other end is a port of a bridge.
    Port {
        /// Name of the other end.
        host_link: String,
        /// Alias of the other end.
        alias: String,
        /// Whether it is isolated from other isolated ports.
        isolated: bool,
    },
    /// A macvlan link.
    Macvlan(Macvlan),
    /// An ipvlan link.
    Ipvlan(Ipvlan, IpvlanIsolation),
}

impl EndpointPlan {
    /// What an endpoint needs, in a container with `endpoints` of them; `None` if the network has
    /// no links.
    pub(in crate::kernel) fn of(
        network: &Network,
        endpoint: &Endpoint,
        endpoints: usize,
        owner: &Owner,
    ) -> Result<Option<Self>, KernelError> {
        let (attachment, mtu) = match &network.driver {
            Driver::Bridge(bridge) => (port(bridge, endpoint, owner), bridge.mtu),
            Driver::Macvlan(parent) => (Attachment::Macvlan(macvlan(parent.mode)), parent.mtu),
            Driver::Ipvlan(parent) => {
                let (mode, isolation) = ipvlan(parent.mode);
                (Attachment::Ipvlan(mode, isolation), parent.mtu)
            }
            Driver::Host | Driver::Nothing => return Ok(None),
        };
        check_name(&endpoint.interface)?;
        if let Attachment::Port { host_link, .. } = &attachment {
            check_name(host_link)?;
        }
        let addresses = endpoint.ipv4.into_iter().chain(endpoint.ipv6);
        let of_link = endpoint.asked.link_local.iter();
        Ok(Some(Self {
            id: endpoint.id.clone(),
            on: HostLink::of(network, owner),
            attachment,
            interface: endpoint.interface.clone(),
            mac: endpoint.mac,
            mtu,
            addresses: addresses.collect(),
            link_local: of_link.map(|address| link_local(*address)).collect(),
            settings: settings(network, endpoint, endpoints)?,
            routes: default_routes(network, endpoint),
        }))
    }

    /// The request that creates the interface. `on`: index of the network's link; `usual_mtu`: that
    /// link's MTU.
    pub(in crate::kernel) fn create(&self, on: u32, usual_mtu: u32) -> Request {
        // A veth pair has 1500 bytes by default, whatever its bridge has; links on a parent inherit
        // the parent's MTU.
        let mtu = self.mtu.unwrap_or(usual_mtu);
        Request::CreateLink(match &self.attachment {
            Attachment::Port { host_link, .. } => VirtualLink {
                mtu: Some(mtu),
                controller: Some(on),
                ..VirtualLink::new(
                    host_link,
                    VirtualKind::Veth {
                        peer: self.interface.clone(),
                        peer_mac: self.mac,
                        peer_mtu: Some(mtu),
                    },
                )
            },
            Attachment::Macvlan(mode) => VirtualLink {
                mac: self.mac,
                mtu: self.mtu,
                elsewhere: true,
                ..VirtualLink::new(
                    self.first_name(),
                    VirtualKind::Macvlan {
                        parent: on,
                        mode: *mode,
                    },
                )
            },
            Attachment::Ipvlan(mode, isolation) => VirtualLink {
                mtu: self.mtu,
                elsewhere: true,
                ..VirtualLink::new(
                    self.first_name(),
                    VirtualKind::Ipvlan {
                        parent: on,
                        mode: *mode,
                        isolation: *isolation,
                    },
                )
            },
        })
    }

    /// The interface's name while it is created. Kernels before 6.14 also search the host for a
    /// link of that name, and refuse `eth0` if the host has one (`rtnl_newlink`). For a veth pair
    /// they do not search for the container's end.
    pub(in crate::kernel) fn first_name(&self) -> String {
        match self.attachment {
            Attachment::Port { .. } => self.interface.clone(),
            Attachment::Macvlan(_) | Attachment::Ipvlan(..) => {
                format!("new-{}", self.id.get(..8).unwrap_or(&self.id))
            }
        }
    }

    /// The link's name on the host, if it has one there.
    pub(in crate::kernel) fn host_link(&self) -> Option<&str> {
        match &self.attachment {
            Attachment::Port { host_link, .. } => Some(host_link),
            Attachment::Macvlan(_) | Attachment::Ipvlan(..) => None,
        }
    }

    /// Parameters of the link on the host, to be set before it is switched on. A port needs no IPv6
    /// of its own, and must not accept router advertisements (CVE-2020-13401).
    pub(in crate::kernel) fn host_settings(&self) -> Vec<Setting> {
        let settings = |link| {
            vec![
                Setting::of_link(true, link, "accept_ra", 0),
                Setting::of_link(true, link, "disable_ipv6", 1),
            ]
        };
        self.host_link().map(settings).unwrap_or_default()
    }

    /// The request that marks the link on the host and switches it on.
    pub(in crate::kernel) fn host_up(&self) -> Option<Request> {
        let Attachment::Port {
            host_link,
            alias,
            isolated,
        } = &self.attachment
        else {
            return None;
        };
        let change = LinkChange {
            alias: Some(alias.clone()),
            port: Some(BridgePort {
                hairpin: true,
                isolated: *isolated,
            }),
            ..LinkChange::up()
        };
        Some(Request::ChangeLink(LinkId::Name(host_link.clone()), change))
    }

    /// The requests that make the link on the host a port of a new bridge, whose index is `bridge`.
    pub(in crate::kernel) fn reattach(&self, bridge: u32) -> Vec<Request> {
        let Some(link) = self.host_link() else {
            return Vec::new();
        };
        let change = LinkChange {
            controller: Some(bridge),
            ..LinkChange::default()
        };
        let id = LinkId::Name(link.to_owned());
        let requests = [Request::ChangeLink(id, change)];
        requests.into_iter().chain(self.host_up()).collect()
    }

    /// The interface's parameters, in their order. `ipv6`: whether the container has IPv6.
    pub(in crate::kernel) fn settings(&self, ipv6: bool) -> impl Iterator<Item = &Setting> {
        // If IPv6 is switched off for a container, that includes its interfaces.
        let settings = self.settings.iter();
        settings.filter(move |setting| ipv6 || !setting.is("disable_ipv6"))
    }

    /// The requests that give the interface its addresses and routes, and switch it on. `ipv6`:
    /// whether the container has IPv6.
    pub(in crate::kernel) fn configure(&self, index: u32, ipv6: bool) -> Vec<Request> {
        let addresses = self.addresses.iter().map(|prefix| (prefix, false));
        let of_link = self.link_local.iter().map(|prefix| (prefix, true));
        let usable = addresses
            .chain(of_link)
            .filter(|(prefix, _)| ipv6 || prefix.address.is_ipv4());
        let addresses = usable.map(|(prefix, link_local)| {
            Request::AddAddress(NewAddress {
                link: index,
                prefix: *prefix,
                protocol: 0,
                link_local,
            })
        });
        let up = Request::ChangeLink(LinkId::Index(index), LinkChange::up());
        let routes = self.routes.iter().filter(|route| ipv6 || !route.ipv6);
        let routes = routes.map(|route| route.add(index));
        addresses.chain([up]).chain(routes).collect()
    }
}

/// Refuses names that the kernel would treat as absent, or refuses without an explanation.
fn check_name(name: &str) -> Result<(), KernelError> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    let fits = (1..=15).contains(&name.len()) && name.bytes().all(allowed);
    match fits && name != "." && name != ".." {
        true => Ok(()),
        false => Err(KernelError::Name {
            name: name.to_owned(),
        }),
    }
}

fn port(bridge: &Bridge, endpoint: &Endpoint, owner: &Owner) -> Attachment {
    Attachment::Port {
        host_link: endpoint.host_link.clone(),
        alias: owner.endpoint(&endpoint.id),
        isolated: !bridge.inter_container,
    }
}

const fn macvlan(mode: MacvlanMode) -> Macvlan {
    match mode {
        MacvlanMode::Bridge => Macvlan::Bridge,
        MacvlanMode::Private => Macvlan::Private,
        MacvlanMode::Vepa => Macvlan::Vepa,
        MacvlanMode::Passthru => Macvlan::Passthru,
    }
}

const fn ipvlan(mode: IpvlanMode) -> (Ipvlan, IpvlanIsolation) {
    let (mode, flag) = match mode {
        IpvlanMode::L2(flag) => (Ipvlan::L2, flag),
        IpvlanMode::L3(flag) => (Ipvlan::L3, flag),
        IpvlanMode::L3S(flag) => (Ipvlan::L3S, flag),
    };
    let isolation = match flag {
        IpvlanFlag::Bridge => IpvlanIsolation::Bridge,
        IpvlanFlag::Private => IpvlanIsolation::Private,
        IpvlanFlag::Vepa => IpvlanIsolation::Vepa,
    };
    (mode, isolation)
}

/// A link-local address has the prefix length of the network that all of them share; any other
/// address has the full length.
fn link_local(address: IpAddr) -> IpPrefix {
    let length = match address {
        IpAddr::V4(address) if address.is_link_local() => 16,
        IpAddr::V4(_) => 32,
        IpAddr::V6(address) if address.is_unicast_link_local() => 64,
        IpAddr::V6(_) => 128,
    };
    IpPrefix { address, length }
}

/// The interface's parameters. Those of the user come last and win.
fn settings(
    network: &Network,
    endpoint: &Endpoint,
    endpoints: usize,
) -> Result<Vec<Setting>, KernelError> {
    let interface = &endpoint.interface;
    let mut settings = Vec::new();
    if endpoint.ipv6.is_some() || network.ipv6 {
        // On a bridge the engine assigns all addresses, so router advertisements could only come
        // from another container. On a link of the host they may come from routers.
        if matches!(network.driver, Driver::Bridge(_)) {
            settings.push(Setting::of_link(true, interface, "accept_ra", 0));
        }
        settings.push(Setting::of_link(true, interface, "disable_ipv6", 0));
    } else {
        // A network without IPv6 must have none at all: no link-local addresses, and nothing that a
        // router on the parent's network advertises (CVE-2024-32473).
        settings.push(Setting::of_link(true, interface, "disable_ipv6", 1));
    }
    if endpoints > 1 && endpoint.ipv4.is_some() {
        // In strict mode, packets that come in by another interface than the default route's would
        // be dropped.
        settings.push(Setting::of_link(false, interface, "rp_filter", 2));
    }
    for (name, value) in &endpoint.asked.sysctls {
        settings.push(Setting::of_user(name, value, interface)?);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests;
