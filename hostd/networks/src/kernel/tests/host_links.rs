//! Links of the host: made as the options say, adopted, refused; and what the host forwards.

use keelson_netlink::{LinkChange, NewAddress, Request, RouteProtocol, VirtualKind, VirtualLink};

use super::lab::*;
use crate::{Driver, GatewayMode, Network};

fn option(network: &mut Network) -> &mut crate::Bridge {
    match &mut network.driver {
        Driver::Bridge(bridge) => bridge,
        _ => panic!("a bridge"),
    }
}

#[test]
fn addresses_of_bridges_follow_the_options() {
    let Some(lab) = Lab::new() else { return };
    let addresses = |link: &str| {
        let index = lab.link(link).unwrap().index;
        let mut found: Vec<_> = batches(&lab.host, |batches| batches.addresses().unwrap())
            .into_iter()
            .filter(|address| address.link == index)
            .map(|address| address.prefix.to_string())
            .filter(|text| !text.starts_with("fe80"))
            .collect();
        found.sort();
        found
    };
    let mut isolated = dual('a');
    option(&mut isolated).mode_ipv4 = GatewayMode::Isolated;
    lab.block_on(lab.kernel.ensure(&isolated)).unwrap();
    assert_eq!(addresses("br-a"), ["fd00:2::1/64"]);
    let mut inhibited = dual('b');
    option(&mut inhibited).inhibit_ipv4 = true;
    lab.block_on(lab.kernel.ensure(&inhibited)).unwrap();
    assert_eq!(addresses("br-b"), ["fd00:2::1/64"]);
    // An address of an earlier configuration goes.
    let mut network = bridge('c', &[("198.51.100.0/24", Some("198.51.100.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    assert_eq!(addresses("br-c"), ["198.51.100.1/24"]);
    network.subnets[0].gateway = Some("198.51.100.254".parse().unwrap());
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    assert_eq!(addresses("br-c"), ["198.51.100.254/24"]);
}

#[test]
fn an_operators_bridge_is_adopted_and_kept() {
    let Some(lab) = Lab::new() else { return };
    lab.run(&[
        Request::CreateLink(VirtualLink::new("br-a", VirtualKind::Bridge)),
        Request::ChangeLink(
            name("br-a"),
            LinkChange {
                mtu: Some(1300),
                ..LinkChange::default()
            },
        ),
    ]);
    let index = lab.link("br-a").unwrap().index;
    lab.run(&[Request::AddAddress(NewAddress {
        link: index,
        prefix: prefix("203.0.113.1/24"),
        protocol: 0,
        link_local: false,
    })]);
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    lab.attach(&container, &[(&network, &first)]);
    udp(&lab.host, &container.namespace, "192.0.2.2");
    assert_eq!(container.link("eth0").unwrap().mtu, 1300);
    lab.block_on(lab.kernel.detach(&network, &first, None))
        .unwrap();
    lab.block_on(lab.kernel.remove(&network)).unwrap();
    let bridge = lab.link("br-a").unwrap();
    assert_eq!((bridge.index, bridge.mtu), (index, 1300));
    let addresses = batches(&lab.host, |batches| batches.addresses().unwrap());
    let left: Vec<_> = addresses
        .iter()
        .filter(|address| address.link == index && address.prefix.length == 24)
        .map(|address| address.prefix.to_string())
        .collect();
    assert_eq!(left, ["203.0.113.1/24"]);
    // A bridge of our own goes.
    let network = dual('b');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    assert!(lab.link("br-b").is_some());
    lab.block_on(lab.kernel.remove(&network)).unwrap();
    lab.block_on(lab.kernel.remove(&network)).unwrap();
    assert!(lab.link("br-b").is_none());
}

#[test]
fn a_name_of_another_link_is_refused_and_nothing_is_left() {
    let Some(lab) = Lab::new() else { return };
    let kind = VirtualKind::Veth {
        peer: "other".to_owned(),
        peer_mac: None,
        peer_mtu: None,
    };
    lab.run(&[Request::CreateLink(VirtualLink::new("br-a", kind))]);
    let network = dual('a');
    let error = lab.block_on(lab.kernel.ensure(&network)).unwrap_err();
    assert!(error.to_string().contains("not a bridge"), "{error}");
    assert_eq!(lab.link("br-a").unwrap().kind.as_deref(), Some("veth"));
    // A bridge that can't get its address does not stay.
    let mut network = dual('b');
    network.subnets[1].gateway = Some("ff02::5".parse().unwrap());
    let error = lab.block_on(lab.kernel.ensure(&network)).unwrap_err();
    assert!(error.to_string().contains("ff02::5"), "{error}");
    assert!(lab.link("br-b").is_none());
}

#[test]
fn the_mtu_is_the_asked_one_or_the_default_routes() {
    let Some(lab) = Lab::new() else { return };
    let uplink = |mtu| {
        let kind = VirtualKind::Veth {
            peer: "far".to_owned(),
            peer_mac: None,
            peer_mtu: None,
        };
        VirtualLink {
            mtu: Some(mtu),
            ..VirtualLink::new("uplink", kind)
        }
    };
    lab.run(&[
        Request::CreateLink(uplink(1420)),
        Request::ChangeLink(name("uplink"), LinkChange::up()),
    ]);
    let index = lab.link("uplink").unwrap().index;
    lab.run(&[Request::SetRoute(keelson_netlink::Route {
        // That of a VRF.
        table: 1000,
        link: index,
        destination: keelson_model::ip::IpPrefix {
            address: [0, 0, 0, 0].into(),
            length: 0,
        },
        gateway: None,
        metric: 0,
        source: None,
        protocol: RouteProtocol::Boot,
    })]);
    let network = bridge('a', &[("192.0.2.0/24", Some("192.0.2.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    assert_eq!(lab.link("br-a").unwrap().mtu, 1420);
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24"]);
    lab.attach(&container, &[(&network, &first)]);
    assert_eq!(container.link("eth0").unwrap().mtu, 1420);
    assert_eq!(lab.link("vetha2").unwrap().mtu, 1420);
    // Asked for, on the bridge as well; the ports that come do not change it.
    let mut network = bridge('b', &[("198.51.100.0/24", Some("198.51.100.1"))]);
    option(&mut network).mtu = Some(9000);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    assert_eq!(lab.link("br-b").unwrap().mtu, 9000);
    let container = Container::new();
    let first = endpoint(&network, 2, &["198.51.100.2/24"]);
    lab.attach(&container, &[(&network, &first)]);
    assert_eq!(container.link("eth0").unwrap().mtu, 9000);
    assert_eq!(lab.link("br-b").unwrap().mtu, 9000);
    // What no bridge can have is a warning only.
    let mut network = bridge('c', &[("203.0.113.0/24", Some("203.0.113.1"))]);
    option(&mut network).mtu = Some(70_000);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
}

#[test]
fn forwarding_keeps_the_advertisements_of_uplinks() {
    let Some(lab) = Lab::new() else { return };
    let kind = VirtualKind::Veth {
        peer: "far".to_owned(),
        peer_mac: None,
        peer_mtu: None,
    };
    lab.run(&[Request::CreateLink(VirtualLink::new("uplink", kind))]);
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let write = |path: &'static str, value: &'static str| {
        let write = move || std::fs::write(format!("/proc/sys/net/{path}"), value);
        lab.host.run(write).unwrap().unwrap();
    };
    write("ipv4/ip_forward", "0");
    write("ipv6/conf/all/forwarding", "0");
    write("ipv6/conf/uplink/accept_ra", "1");
    write("ipv6/conf/far/accept_ra", "0");
    let is_off = |ipv6| lab.block_on(lab.kernel.is_forwarding_off(ipv6)).unwrap();
    let enable = |ipv6| lab.block_on(lab.kernel.enable_forwarding(ipv6)).unwrap();
    assert!(is_off(false) && is_off(true));
    enable(false);
    assert!(!is_off(false) && is_off(true));
    assert_eq!(setting(&lab.host, "ipv6/conf/uplink/accept_ra"), "1");
    enable(true);
    enable(true);
    assert!(!is_off(true));
    assert_eq!(setting(&lab.host, "ipv4/ip_forward"), "1");
    assert_eq!(setting(&lab.host, "ipv6/conf/all/forwarding"), "1");
    assert_eq!(setting(&lab.host, "ipv6/conf/uplink/accept_ra"), "2");
    assert_eq!(setting(&lab.host, "ipv6/conf/far/accept_ra"), "0");
    assert_eq!(setting(&lab.host, "ipv6/conf/br-a/accept_ra"), "0");
}
