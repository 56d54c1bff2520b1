//! Encoded messages, including kinds of links that the kernel of the test may lack.

use std::fs::File;
use std::os::fd::AsFd;

use netlink_packet_route::AddressFamily;
use rtnetlink::packet_core::Parseable;

use super::*;

/// The type, flags and link message of a request.
fn link_message(of: &Request, elsewhere: Option<BorrowedFd<'_>>) -> (u16, u16, LinkMessage) {
    let mut buffer = Vec::new();
    assert!(request(&mut buffer, 77, of, true, elsewhere));
    let length = u32::from_ne_bytes(buffer[..4].try_into().unwrap()) as usize;
    assert_eq!(buffer.len(), length.next_multiple_of(4));
    assert_eq!(buffer[8..12], 77u32.to_ne_bytes());
    let half = |at: usize| u16::from_ne_bytes(buffer[at..at + 2].try_into().unwrap());
    let message = LinkMessage::parse(&buffer[HEADER..length]).unwrap();
    (half(4), half(6), message)
}

fn info(message: &LinkMessage) -> &[LinkInfo] {
    let mut attributes = message.attributes.iter();
    let info = attributes.find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => Some(info.as_slice()),
        _ => None,
    });
    info.unwrap_or_default()
}

#[test]
fn links_on_others_are_made_in_another_namespace() {
    let file = File::open("/proc/self/ns/net").unwrap();
    let fd = file.as_raw_fd();
    let cases = [
        (
            VirtualKind::Macvlan {
                parent: 9,
                mode: Macvlan::Passthru,
            },
            InfoKind::MacVlan,
            InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Passthrough)]),
        ),
        (
            VirtualKind::Ipvlan {
                parent: 9,
                mode: Ipvlan::L3S,
                isolation: IpvlanIsolation::Vepa,
            },
            InfoKind::IpVlan,
            InfoData::IpVlan(vec![
                InfoIpVlan::Mode(IpVlanMode::L3S),
                InfoIpVlan::Flags(IpVlanFlags::Vepa),
            ]),
        ),
        (
            VirtualKind::Vlan { parent: 9, id: 10 },
            InfoKind::Vlan,
            InfoData::Vlan(vec![InfoVlan::Id(10)]),
        ),
    ];
    for (kind, name, data) in cases {
        let link = VirtualLink {
            elsewhere: true,
            mtu: Some(1400),
            ..VirtualLink::new("eth0", kind)
        };
        let create = Request::CreateLink(link.clone());
        let (kind, flags, message) = link_message(&create, Some(file.as_fd()));
        assert_eq!(kind, NEW_LINK);
        assert_eq!(flags, REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE);
        let has = |attribute| message.attributes.contains(&attribute);
        assert!(has(LinkAttribute::IfName("eth0".to_owned())));
        assert!(has(LinkAttribute::Link(9)) && has(LinkAttribute::Mtu(1400)));
        assert!(has(LinkAttribute::NetNsFd(fd)));
        assert_eq!(info(&message), [LinkInfo::Kind(name), LinkInfo::Data(data)]);
        // Without another namespace the link is created here.
        let (_, _, message) = link_message(&create, None);
        assert!(!message.attributes.contains(&LinkAttribute::NetNsFd(fd)));
    }
}

#[test]
fn the_peer_of_a_pair_is_created_elsewhere() {
    let file = File::open("/proc/self/ns/net").unwrap();
    let kind = VirtualKind::Veth {
        peer: "eth0".to_owned(),
        peer_mac: Some([2, 0, 0, 0, 0, 1]),
        peer_mtu: Some(1400),
    };
    let create = Request::CreateLink(VirtualLink::new("veth0", kind));
    let (_, _, message) = link_message(&create, Some(file.as_fd()));
    let namespace = LinkAttribute::NetNsFd(file.as_raw_fd());
    assert!(!message.attributes.contains(&namespace));
    let Some(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))) = info(&message).get(1) else {
        panic!("a peer: {message:?}");
    };
    let has = |attribute| peer.attributes.contains(&attribute);
    assert!(has(namespace) && has(LinkAttribute::IfName("eth0".to_owned())));
    assert!(has(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1])));
}

#[test]
fn addresses_have_their_broadcast_address_and_no_duplicate_detection() {
    let new = |prefix: &str| {
        address(&NewAddress {
            link: 3,
            prefix: prefix.parse().unwrap(),
            protocol: 75,
            link_local: false,
        })
    };
    let broadcast = |message: &AddressMessage| {
        let mut attributes = message.attributes.iter();
        attributes.find_map(|attribute| match attribute {
            AddressAttribute::Broadcast(address) => Some(address.to_string()),
            _ => None,
        })
    };
    let message = new("192.0.2.130/25");
    assert_eq!(broadcast(&message).as_deref(), Some("192.0.2.255"));
    let nodad = AddressAttribute::Flags(AddressFlags::Nodad);
    assert!(message.attributes.contains(&nodad));
    assert_eq!(broadcast(&new("192.0.2.1/31")), None);
    let message = new("fd00::1/64");
    assert_eq!(broadcast(&message), None);
    assert!(message.attributes.contains(&nodad));
    assert_eq!(message.header.family, AddressFamily::Inet6);
}

#[test]
fn a_route_that_mixes_families_is_refused() {
    let route = crate::Route {
        table: crate::TABLE_MAIN,
        link: 1,
        destination: "192.0.2.0/24".parse().unwrap(),
        gateway: Some("fd00::1".parse().unwrap()),
        metric: 0,
        source: None,
        protocol: crate::RouteProtocol::Static,
    };
    let mut buffer = Vec::new();
    assert!(!request(
        &mut buffer,
        1,
        &Request::SetRoute(route),
        true,
        None
    ));
    assert!(buffer.is_empty());
}
