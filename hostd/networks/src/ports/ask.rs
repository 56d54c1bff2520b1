//! Plans which ports to reserve for a request. Pure: nothing here uses the kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_model::spec::{Port, PortRange, PublishedPort};

use crate::types::{Binding, Endpoint, GatewayMode, Network};

/// The endpoint that publishes a container's ports of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    /// The container's address.
    pub(crate) container: IpAddr,
    /// Whether ports are reached at that address, without using ports of the host.
    pub(crate) routed: bool,
    /// The host's address for ports that name none; `None`: all addresses.
    pub(crate) default_binding: Option<IpAddr>,
}

/// The endpoints that publish a container's ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The IPv4 endpoint.
    pub(crate) ipv4: Option<Side>,
    /// The IPv6 endpoint.
    pub(crate) ipv6: Option<Side>,
}

impl Facts {
    /// Chooses the endpoints that publish a container's ports: for each family the one with the
    /// default route, or else one of a routed network.
    #[must_use]
    pub(crate) fn of<'a>(endpoints: impl IntoIterator<Item = (&'a Network, &'a Endpoint)>) -> Self {
        let mut facts = Self::default();
        for (network, endpoint) in endpoints {
            let Some(bridge) = network.bridge().filter(|_| !network.internal) else {
                continue;
            };
            for (ipv6, own, gateway, place) in [
                (false, endpoint.ipv4, endpoint.default_ipv4, &mut facts.ipv4),
                (true, endpoint.ipv6, endpoint.default_ipv6, &mut facts.ipv6),
            ] {
                let mode = bridge.mode(ipv6);
                let routed = mode == GatewayMode::Routed;
                let counts = match routed {
                    true => gateway || place.is_none(),
                    false => gateway && mode != GatewayMode::Isolated,
                };
                if let Some(own) = own.filter(|_| counts) {
                    *place = Some(Side {
                        container: own.address,
                        routed,
                        default_binding: bridge.default_binding,
                    });
                }
            }
        }
        facts
    }

    pub(super) const fn container(&self, host: IpAddr) -> Option<IpAddr> {
        let side = if host.is_ipv6() { self.ipv6 } else { self.ipv4 };
        match side {
            Some(side) => Some(side.container),
            None => None,
        }
    }
}

/// A group of bindings that get the same port number: those with the same requested ports on both
/// sides, at any addresses. Otherwise a client that tries IPv6 first could reach another container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) port: Port,
    /// The allowed ports; `None`: any free port.
    pub(super) host_ports: Option<PortRange>,
    /// The addresses, each once, with the request for each.
    pub(super) members: Vec<(IpAddr, PublishedPort)>,
}

impl Group {
    pub(super) fn bindings(&self, host_port: u16) -> impl Iterator<Item = Binding> {
        self.members.iter().map(move |(host, asked)| Binding {
            asked: asked.clone(),
            port: self.port,
            host: *host,
            host_port,
        })
    }
}

/// Plans the reservations, in order: exact ports first, then ranges, which may avoid them, then any
/// free ports. Also returns the bindings that use no port of the host.
pub(super) fn groups(
    asked: &[PublishedPort],
    exposed: &[Port],
    facts: &Facts,
    host_has_ipv6: bool,
) -> (Vec<Group>, Vec<Binding>) {
    let named: BTreeSet<_> = asked.iter().map(|asked| asked.port).collect();
    let unnamed = exposed.iter().filter(|port| !named.contains(port));
    let unnamed = unnamed.map(|port| PublishedPort {
        port: *port,
        host: None,
        host_ports: None,
    });
    let mut groups: Vec<Group> = Vec::new();
    let mut direct = Vec::new();
    for asked in asked.iter().cloned().chain(unnamed) {
        for (host, routed) in hosts(&asked, facts, host_has_ipv6) {
            if routed {
                let binding = Binding {
                    port: asked.port,
                    asked: asked.clone(),
                    host,
                    host_port: 0,
                };
                if !direct.contains(&binding) {
                    direct.push(binding);
                }
                continue;
            }
            let same = |group: &&mut Group| {
                group.port == asked.port && group.host_ports == asked.host_ports
            };
            match groups.iter_mut().find(same) {
                Some(group) if group.members.iter().any(|(known, _)| *known == host) => {}
                Some(group) => group.members.push((host, asked.clone())),
                None => groups.push(Group {
                    port: asked.port,
                    host_ports: asked.host_ports,
                    members: vec![(host, asked.clone())],
                }),
            }
        }
    }
    groups.sort_by_key(|group| match group.host_ports {
        Some(range) => (false, range.last.saturating_sub(range.first)),
        None => (true, 0),
    });
    (groups, direct)
}

/// The host's addresses for a request, and whether the container is reached at its own address
/// instead.
fn hosts(asked: &PublishedPort, facts: &Facts, host_has_ipv6: bool) -> Vec<(IpAddr, bool)> {
    let mut found = Vec::new();
    let given = asked.host.map(|host| host.to_canonical());
    if let Some(side) = facts.ipv4 {
        let host = match given.or(side.default_binding) {
            None => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            Some(host) => Some(host).filter(IpAddr::is_ipv4),
        };
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        found.extend(host.map(|host| (if side.routed { everywhere } else { host }, side.routed)));
    }
    if let Some(side) = facts.ipv6 {
        let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let default = match side.default_binding {
            // As a default, all IPv4 addresses means all addresses.
            Some(IpAddr::V4(address)) if address.is_unspecified() => None,
            default => default,
        };
        let host = match given.or(default) {
            None => Some(everywhere).filter(|_| host_has_ipv6 || side.routed),
            Some(host) => Some(host).filter(IpAddr::is_ipv6),
        };
        found.extend(host.map(|host| (if side.routed { everywhere } else { host }, side.routed)));
    }
    found
}
