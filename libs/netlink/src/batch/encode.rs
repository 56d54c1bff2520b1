//! Encodes requests as netlink messages.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use keelson_model::ip::IpPrefix;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan,
    InfoPortData, InfoPortKind, InfoVeth, InfoVlan, IpVlanFlags, IpVlanMode, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_core::Emitable;

use crate::batch::request::{
    Ipvlan, IpvlanIsolation, LinkChange, LinkId, Macvlan, NewAddress, Request, VirtualKind,
    VirtualLink,
};
use crate::{Mac, convert};

/// Length of `struct nlmsghdr`: length, type, flags, sequence number, port.
pub(crate) const HEADER: usize = 16;

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DELETE_LINK: u16 = 17;
pub(crate) const GET_LINK: u16 = 18;
pub(crate) const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
pub(crate) const GET_ADDRESS: u16 = 22;
pub(crate) const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
pub(crate) const GET_ROUTE: u16 = 26;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

/// Adds one message to a buffer.
pub(crate) fn message(
    buffer: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &impl Emitable,
) {
    let start = buffer.len();
    let length = HEADER + body.buffer_len();
    buffer.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    // Messages begin at multiples of four bytes.
    buffer.resize(start + length.next_multiple_of(4), 0);
    if let Some(place) = buffer.get_mut(start + HEADER..start + length) {
        body.emit(place);
    }
}

/// Adds the message of a request to a buffer; returns `false` if the request mixes both families of
/// addresses. The kernel always answers errors; with `acknowledge`, it answers success, too.
pub(crate) fn request(
    buffer: &mut Vec<u8>,
    sequence: u32,
    request: &Request,
    acknowledge: bool,
    elsewhere: Option<BorrowedFd<'_>>,
) -> bool {
    let elsewhere = elsewhere.map(|namespace| namespace.as_raw_fd());
    let acknowledge = if acknowledge { ACKNOWLEDGE } else { 0 };
    let mut add = |kind, flags, body: &dyn Body| {
        message(buffer, kind, acknowledge | flags, sequence, &Wrapped(body));
    };
    match request {
        Request::CreateLink(link) => {
            let body = create_link(link, elsewhere);
            add(NEW_LINK, CREATE | EXCLUSIVE, &body);
        }
        // RTM_SETLINK ignores the properties of ports, so use RTM_NEWLINK without NLM_F_CREATE.
        Request::ChangeLink(link, change) => add(NEW_LINK, 0, &change_link(link, change)),
        Request::RemoveLink(link) => add(DELETE_LINK, 0, &named(link)),
        Request::AddAddress(new) => add(NEW_ADDRESS, CREATE | REPLACE, &address(new)),
        Request::RemoveAddress { link, prefix } => {
            add(DELETE_ADDRESS, 0, &bare_address(*link, *prefix));
        }
        Request::SetRoute(route) => match convert::route_message(route) {
            Some(body) => add(NEW_ROUTE, CREATE | REPLACE, &body),
            None => return false,
        },
        Request::RemoveRoute(route) => match convert::route_message(route) {
            Some(body) => add(DELETE_ROUTE, 0, &body),
            None => return false,
        },
    }
    true
}

/// A body that [`message`] takes.
trait Body {
    fn length(&self) -> usize;
    fn write(&self, buffer: &mut [u8]);
}

impl<T: Emitable> Body for T {
    fn length(&self) -> usize {
        self.buffer_len()
    }

    fn write(&self, buffer: &mut [u8]) {
        self.emit(buffer);
    }
}

struct Wrapped<'a>(&'a dyn Body);

impl Emitable for Wrapped<'_> {
    fn buffer_len(&self) -> usize {
        self.0.length()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.write(buffer);
    }
}

/// A message that only names a link.
fn named(link: &LinkId) -> LinkMessage {
    let mut message = LinkMessage::default();
    match link {
        LinkId::Index(index) => message.header.index = *index,
        LinkId::Name(name) => message.attributes.push(LinkAttribute::IfName(name.clone())),
    }
    message
}

/// The request for one link without its counters, which make up most of the answer.
pub(crate) fn get_link(link: &LinkId) -> LinkMessage {
    let mut message = named(link);
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    message.attributes.push(mask);
    message
}

fn create_link(link: &VirtualLink, elsewhere: Option<RawFd>) -> LinkMessage {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(link.name.clone()));
    attributes.extend(hardware(link.mac, link.mtu));
    if let Some(controller) = link.controller {
        attributes.push(LinkAttribute::Controller(controller));
    }
    if let (true, Some(namespace)) = (link.elsewhere, elsewhere) {
        attributes.push(LinkAttribute::NetNsFd(namespace));
    }
    let kind = match &link.kind {
        VirtualKind::Dummy => InfoKind::Dummy,
        VirtualKind::Bridge => InfoKind::Bridge,
        VirtualKind::Veth { .. } => InfoKind::Veth,
        VirtualKind::Vlan { .. } => InfoKind::Vlan,
        VirtualKind::Macvlan { .. } => InfoKind::MacVlan,
        VirtualKind::Ipvlan { .. } => InfoKind::IpVlan,
    };
    let mut info = vec![LinkInfo::Kind(kind)];
    match &link.kind {
        VirtualKind::Dummy => {}
        VirtualKind::Bridge => info.push(LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::ForwardDelay(0),
        ]))),
        VirtualKind::Veth {
            peer,
            peer_mac,
            peer_mtu,
        } => {
            attributes.extend(ONE_QUEUE);
            let mut other = LinkMessage::default();
            let attributes = &mut other.attributes;
            attributes.push(LinkAttribute::IfName(peer.clone()));
            attributes.extend(ONE_QUEUE);
            attributes.extend(hardware(*peer_mac, *peer_mtu));
            if let Some(namespace) = elsewhere {
                attributes.push(LinkAttribute::NetNsFd(namespace));
            }
            info.push(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))));
        }
        VirtualKind::Vlan { parent, id } => {
            attributes.push(LinkAttribute::Link(*parent));
            let data = vec![InfoVlan::Id(*id)];
            info.push(LinkInfo::Data(InfoData::Vlan(data)));
        }
        VirtualKind::Macvlan { parent, mode } => {
            attributes.push(LinkAttribute::Link(*parent));
            let mode = match mode {
                Macvlan::Bridge => MacVlanMode::Bridge,
                Macvlan::Private => MacVlanMode::Private,
                Macvlan::Vepa => MacVlanMode::Vepa,
                Macvlan::Passthru => MacVlanMode::Passthrough,
            };
            let data = vec![InfoMacVlan::Mode(mode)];
            info.push(LinkInfo::Data(InfoData::MacVlan(data)));
        }
        VirtualKind::Ipvlan {
            parent,
            mode,
            isolation,
        } => {
            attributes.push(LinkAttribute::Link(*parent));
            let mode = match mode {
                Ipvlan::L2 => IpVlanMode::L2,
                Ipvlan::L3 => IpVlanMode::L3,
                Ipvlan::L3S => IpVlanMode::L3S,
            };
            let flags = match isolation {
                IpvlanIsolation::Bridge => IpVlanFlags::empty(),
                IpvlanIsolation::Private => IpVlanFlags::Private,
                IpvlanIsolation::Vepa => IpVlanFlags::Vepa,
            };
            let data = vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)];
            info.push(LinkInfo::Data(InfoData::IpVlan(data)));
        }
    }
    attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// One queue for each direction. By default the kernel makes one for each processor, each with two
/// directories in /sys. A veth pair has no use for them: it has no hardware to share, and does not
/// queue.
const ONE_QUEUE: [LinkAttribute; 2] =
    [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

fn hardware(mac: Option<Mac>, mtu: Option<u32>) -> impl Iterator<Item = LinkAttribute> {
    let mac = mac.map(|mac| LinkAttribute::Address(mac.to_vec()));
    mac.into_iter().chain(mtu.map(LinkAttribute::Mtu))
}

fn change_link(link: &LinkId, change: &LinkChange) -> LinkMessage {
    let mut message = named(link);
    if let Some(up) = change.up {
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
    }
    let attributes = &mut message.attributes;
    attributes.extend(change.name.clone().map(LinkAttribute::IfName));
    attributes.extend(change.alias.clone().map(LinkAttribute::IfAlias));
    attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    attributes.extend(change.controller.map(LinkAttribute::Controller));
    if let Some(port) = change.port {
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(port.hairpin),
                InfoBridgePort::Isolated(port.isolated),
            ])),
        ]));
    }
    message
}

/// An address without further properties.
fn bare_address(link: u32, prefix: IpPrefix) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = convert::family(prefix.address.is_ipv6());
    message.header.prefix_len = prefix.length;
    message.header.index = link;
    // Requests for IPv4 name `Local`; without `Address`, both ends have the same address.
    message
        .attributes
        .push(AddressAttribute::Local(prefix.address));
    message
}

fn address(new: &NewAddress) -> AddressMessage {
    let mut message = bare_address(new.link, new.prefix);
    if new.link_local {
        message.header.scope = AddressScope::Link;
    }
    let attributes = &mut message.attributes;
    attributes.push(AddressAttribute::Address(new.prefix.address));
    if let (IpAddr::V4(address), length @ 0..=30) = (new.prefix.address, new.prefix.length) {
        let hosts = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let broadcast = (address.to_bits() | hosts).into();
        attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    if new.protocol != 0 {
        let protocol = AddressProtocol::from(new.protocol);
        attributes.push(AddressAttribute::Protocol(protocol));
    }
    message
}

#[cfg(test)]
mod tests;
