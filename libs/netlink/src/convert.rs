//! From the kernel's messages to our types, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_model::ip::IpPrefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgePortState, InfoBridgePort, InfoPortData, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    self, RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::RouteMessageBuilder;

use crate::{Address, Link, Neighbour, Route, RouteProtocol, Rule};

/// A link with a name.
pub(crate) fn link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let mut name = None;
    let mut mac = None;
    let mut mtu = 0;
    let mut max_mtu = None;
    let mut kind = None;
    let mut controller = None;
    let mut parent = None;
    let mut alias = None;
    let mut forwards = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            // Zero means that the driver has no limit.
            LinkAttribute::MaxMtu(bytes) => max_mtu = (*bytes > 0).then_some(*bytes),
            LinkAttribute::Controller(index) => controller = Some(*index),
            LinkAttribute::Link(index) => parent = Some(*index),
            LinkAttribute::IfAlias(text) => alias = Some(text.clone()),
            // Links that a user makes (veth, bridge, dummy, VLAN, tun …) have a kind.
            LinkAttribute::LinkInfo(info) => {
                kind = info.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                forwards = info.iter().find_map(|info| match info {
                    LinkInfo::PortData(InfoPortData::BridgePort(port)) => Some(is_forwarding(port)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Link {
        index: header.index,
        name: name?,
        mac,
        ethernet: header.link_layer_type == LinkLayerType::Ether && mac.is_some(),
        kind,
        controller,
        parent,
        alias,
        forwards,
        loopback: header.flags.contains(LinkFlags::Loopback),
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mtu,
        max_mtu,
    })
}

fn is_forwarding(port: &[InfoBridgePort]) -> bool {
    port.contains(&InfoBridgePort::State(BridgePortState::Forwarding))
}

/// An address of a link.
pub(crate) fn address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut address = None;
    let mut protocol = 0;
    let mut lifetime = None;
    for attribute in &message.attributes {
        match attribute {
            // On links with two ends, `Address` is the other end and `Local` this one.
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Protocol(found) => protocol = u8::from(*found),
            AddressAttribute::CacheInfo(times) if times.ifa_valid != u32::MAX => {
                lifetime = Some(times.ifa_valid);
            }
            _ => {}
        }
    }
    Some(Address {
        link: message.header.index,
        prefix: IpPrefix {
            address: local.or(address)?,
            length: message.header.prefix_len,
        },
        protocol,
        lifetime,
    })
}

/// A unicast route with one next hop.
pub(crate) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = unspecified(header.address_family)?;
    let mut link = None;
    let mut gateway = None;
    let mut metric = 0;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(found) => destination = ip(found)?,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(found) => gateway = Some(ip(found)?),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::PrefSource(found) => source = Some(ip(found)?),
            RouteAttribute::MultiPath(_) | RouteAttribute::Via(_) => return None,
            _ => {}
        }
    }
    Some(Route {
        table,
        link: link?,
        destination: IpPrefix {
            address: destination,
            length: header.destination_prefix_length,
        },
        gateway,
        metric,
        source,
        protocol: match header.protocol {
            route::RouteProtocol::Kernel => RouteProtocol::Kernel,
            route::RouteProtocol::Boot => RouteProtocol::Boot,
            route::RouteProtocol::Static => RouteProtocol::Static,
            route::RouteProtocol::Dhcp => RouteProtocol::Dhcp,
            other => RouteProtocol::Other(u8::from(other)),
        },
    })
}

/// Returns `None` if it mixes addresses of both families.
pub(crate) fn route_message(route: &Route) -> Option<RouteMessage> {
    let protocol = match route.protocol {
        RouteProtocol::Kernel => route::RouteProtocol::Kernel,
        RouteProtocol::Boot => route::RouteProtocol::Boot,
        RouteProtocol::Static => route::RouteProtocol::Static,
        RouteProtocol::Dhcp => route::RouteProtocol::Dhcp,
        RouteProtocol::Other(number) => route::RouteProtocol::from(number),
    };
    // The kernel supports IPv4 routes through IPv6 gateways, but `route` does not parse them.
    let ipv6 = route.destination.address.is_ipv6();
    let others = [route.gateway, route.source];
    if others.iter().flatten().any(|other| other.is_ipv6() != ipv6) {
        return None;
    }
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.address, route.destination.length)
        .ok()?
        .output_interface(route.link)
        .priority(route.metric)
        .table_id(route.table)
        .protocol(protocol);
    builder = match route.gateway {
        // On-link: the caller says that the gateway is on this link, so the kernel resolves its
        // hardware address even when the gateway is outside of the address's prefix (such as /32).
        Some(gateway) => builder.gateway(gateway).ok()?.onlink(),
        None => builder.scope(RouteScope::Link),
    };
    if let Some(source) = route.source {
        builder = builder.pref_source(source).ok()?;
    }
    Some(builder.build())
}

/// A rule that selects a table.
pub(crate) fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    if header.action != RuleAction::ToTable {
        return None;
    }
    let mut found = Rule {
        priority: 0,
        source: None,
        destination: None,
        mark: None,
        table: u32::from(header.table),
        ipv6: unspecified(header.family)?.is_ipv6(),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => found.priority = *priority,
            RuleAttribute::Table(table) => found.table = *table,
            RuleAttribute::FwMark(mark) => found.mark = Some(*mark),
            RuleAttribute::Source(address) => {
                found.source = Some(IpPrefix {
                    address: *address,
                    length: header.src_len,
                });
            }
            RuleAttribute::Destination(address) => {
                found.destination = Some(IpPrefix {
                    address: *address,
                    length: header.dst_len,
                });
            }
            _ => {}
        }
    }
    Some(found)
}

/// An entry of a neighbour table with an IP address.
pub(crate) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address: address?,
        mac,
        permanent: message.header.state == NeighbourState::Permanent,
    })
}

pub(crate) fn family(ipv6: bool) -> AddressFamily {
    match ipv6 {
        true => AddressFamily::Inet6,
        false => AddressFamily::Inet,
    }
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::from(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::from(*address)),
        _ => None,
    }
}
