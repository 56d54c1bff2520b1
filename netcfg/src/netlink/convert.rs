//! The kernel's messages in our own words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_config::IpPrefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use super::ADDRESS_PROTOCOL;
use crate::model::{Address, Link, Origin, Route};

/// A link with a name.
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    let header = &message.header;
    let mut name = None;
    let mut mac = None;
    let mut mtu = 0;
    let mut max_mtu = None;
    let mut physical = true;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            // Zero says that the driver has no limit.
            LinkAttribute::MaxMtu(bytes) => max_mtu = (*bytes > 0).then_some(*bytes),
            // Links that a user makes (veth, bridge, dummy, VLAN, tun …) have a kind.
            LinkAttribute::LinkInfo(info) => {
                physical = !info.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
            }
            _ => {}
        }
    }
    let loopback = header.flags.contains(LinkFlags::Loopback);
    Some(Link {
        index: header.index,
        name: name?,
        mac,
        ethernet: header.link_layer_type == LinkLayerType::Ether && mac.is_some(),
        physical: physical && !loopback,
        loopback,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mtu,
        max_mtu,
        accept_ra: None,
    })
}

/// An address of a link.
pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut address = None;
    let mut ours = false;
    let mut lifetime = None;
    for attribute in &message.attributes {
        match attribute {
            // On links of two ends, `Address` is the other end and `Local` this one.
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Protocol(AddressProtocol::Other(protocol)) => {
                ours = *protocol == ADDRESS_PROTOCOL;
            }
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
        ours,
        lifetime,
    })
}

/// A unicast route of the main table with one next hop and one of our protocols.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let origin = match header.protocol {
        RouteProtocol::Static => Origin::Static,
        RouteProtocol::Dhcp => Origin::Dhcp,
        _ => return None,
    };
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = unspecified;
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
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    Some(Route {
        link: link?,
        destination: IpPrefix {
            address: destination,
            length: header.destination_prefix_length,
        },
        gateway,
        metric,
        source,
        origin,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::from(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::from(*address)),
        _ => None,
    }
}
