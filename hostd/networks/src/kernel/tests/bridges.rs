//! Bridge networks: their bridges, and who reaches whom.

use std::time::{Duration, Instant};

use keelson_netlink::{
    Batches, LinkChange, NewAddress, Request, RouteProtocol, VirtualKind, VirtualLink,
};
use keelson_sys::packet::{BROADCAST, PacketSocket};

use super::lab::*;
use crate::{Driver, GatewayMode, Network};

fn option(network: &mut Network) -> &mut crate::Bridge {
    match &mut network.driver {
        Driver::Bridge(bridge) => bridge,
        _ => panic!("a bridge"),
    }
}

#[test]
fn containers_reach_each_other_and_the_host_at_once() {
    let Some(lab) = Lab::new() else { return };
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let (one, two) = (Container::new(), Container::new());
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    let second = endpoint(&network, 3, &["192.0.2.3/24", "fd00:2::3/64"]);
    lab.attach(&one, &[(&network, &first)]);
    lab.attach(&two, &[(&network, &second)]);
    // The very first packet arrives, because the bridge forwards already.
    try_udp(&one.namespace, &two.namespace, "192.0.2.3").unwrap();
    // No address waits for duplicate address detection; otherwise it could not be bound. A packet
    // may be lost here, because a kernel worker makes the interface listen to solicitations.
    udp(&one.namespace, &two.namespace, "fd00:2::3");
    for address in ["192.0.2.2", "fd00:2::2"] {
        tcp(&two.namespace, &one.namespace, address);
        tcp(&lab.host, &one.namespace, address);
    }
    for address in ["192.0.2.1", "fd00:2::1"] {
        udp(&one.namespace, &lab.host, address);
    }
    let eth0 = one.link("eth0").unwrap();
    assert_eq!(eth0.mac, first.mac);
    assert!(eth0.up && one.link("lo").unwrap().up);
    let (routes, addresses) = batches(&one.namespace, |batches| {
        (batches.routes().unwrap(), batches.addresses().unwrap())
    });
    let mut gateways: Vec<_> = routes
        .iter()
        .filter(|route| route.destination.length == 0)
        .map(|route| route.gateway.unwrap().to_string())
        .collect();
    gateways.sort();
    assert_eq!(gateways, ["192.0.2.1", "fd00:2::1"]);
    // The interface and the bridge have link-local addresses, too.
    let local = |address: &&keelson_netlink::Address| {
        address.prefix.to_string().starts_with("fe80") && address.link == eth0.index
    };
    assert_eq!(addresses.iter().filter(local).count(), 1);
    let bridge = lab.link("br-a").unwrap();
    let addresses = batches(&lab.host, |batches| batches.addresses().unwrap());
    let mut of_bridge: Vec<_> = addresses
        .iter()
        .filter(|address| address.link == bridge.index)
        .map(|address| address.prefix.to_string())
        .collect();
    of_bridge.sort();
    assert_eq!(of_bridge[..2], ["192.0.2.1/24", "fd00:2::1/64"]);
    assert!(of_bridge[2].starts_with("fe80::"), "{of_bridge:?}");
}

#[test]
fn the_first_packet_of_a_container_is_not_lost() {
    let Some(lab) = Lab::new() else { return };
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0u32));
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        // Older kernels can't be made to notice carriers.
        return;
    }
    let network = bridge('a', &[("192.0.2.0/24", Some("192.0.2.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let bind = || std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
    let server = lab.host.run(bind).unwrap();
    let address = server.local_addr().unwrap();
    // A lost request for the hardware address is repeated after one second.
    server
        .set_read_timeout(Some(Duration::from_millis(900)))
        .unwrap();
    for number in 2..32 {
        let container = Container::new();
        let own = format!("192.0.2.{number}/24");
        let first = endpoint(&network, number, &[&own]);
        let connections = [(&network, &first)];
        let send = move || {
            let client = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            client.send_to(b"question", address).unwrap();
        };
        let attached = lab.kernel.attach(&container.fd, &connections, send);
        lab.block_on(attached).unwrap();
        let received = server.recv_from(&mut [0; 16]);
        assert!(received.is_ok(), "{own}: {received:?}");
        lab.block_on(lab.kernel.detach(&network, &first, None))
            .unwrap();
    }
}

#[test]
fn kernel_parameters_are_those_of_a_safe_host() {
    let Some(lab) = Lab::new() else { return };
    let network = bridge('a', &[("192.0.2.0/24", Some("192.0.2.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let host = |path: &str| setting(&lab.host, path);
    assert_eq!(host("ipv6/conf/br-a/accept_ra"), "0");
    assert_eq!(host("ipv6/conf/br-a/disable_ipv6"), "1");
    assert_eq!(host("ipv4/conf/br-a/route_localnet"), "1");
    assert_eq!(host("ipv4/conf/all/route_localnet"), "0");
    let container = Container::new();
    let mut first = endpoint(&network, 2, &["192.0.2.2/24"]);
    let sysctls = &mut first.asked.sysctls;
    sysctls.insert("net.ipv4.conf.IFNAME.log_martians".into(), "1".into());
    sysctls.insert("net.ipv4.neigh.ifname.mcast_solicit".into(), "5".into());
    lab.attach(&container, &[(&network, &first)]);
    assert_eq!(host("ipv6/conf/vetha2/accept_ra"), "0");
    assert_eq!(host("ipv6/conf/vetha2/disable_ipv6"), "1");
    let inside = |path: &str| setting(&container.namespace, path);
    // CVE-2024-32473: no IPv6 at all in an IPv4 network.
    assert_eq!(inside("ipv6/conf/eth0/disable_ipv6"), "1");
    let addresses = batches(&container.namespace, |batches| batches.addresses().unwrap());
    let eth0 = container.link("eth0").unwrap();
    let of_eth0 = addresses
        .iter()
        .filter(|address| address.link == eth0.index);
    let found: Vec<_> = of_eth0.map(|address| address.prefix.to_string()).collect();
    assert_eq!(found, ["192.0.2.2/24"]);
    assert_eq!(inside("ipv4/conf/eth0/log_martians"), "1");
    assert_eq!(inside("ipv4/neigh/eth0/mcast_solicit"), "5");
    // The host's own parameters are not changed.
    assert_eq!(host("ipv4/conf/all/log_martians"), "0");

    // With IPv6, and a second network.
    let second = dual('b');
    lab.block_on(lab.kernel.ensure(&second)).unwrap();
    assert_eq!(host("ipv6/conf/br-b/disable_ipv6"), "0");
    assert_eq!(host("ipv6/conf/br-b/accept_ra"), "0");
    let other = Container::new();
    let one = endpoint(&network, 3, &["192.0.2.3/24"]);
    let mut two = endpoint(&second, 3, &["192.0.2.3/24", "fd00:2::3/64"]);
    two.interface = "eth1".to_owned();
    lab.attach(&other, &[(&network, &one), (&second, &two)]);
    let inside = |path: &str| setting(&other.namespace, path);
    assert_eq!(inside("ipv4/conf/eth0/rp_filter"), "2");
    assert_eq!(inside("ipv4/conf/eth1/rp_filter"), "2");
    assert_eq!(inside("ipv6/conf/eth0/disable_ipv6"), "1");
    assert_eq!(inside("ipv6/conf/eth1/disable_ipv6"), "0");
    assert_eq!(inside("ipv6/conf/eth1/accept_ra"), "0");
    // The container has IPv6, whatever its networks have.
    let found = batches(&other.namespace, |batches| batches.addresses().unwrap());
    assert!(
        found
            .iter()
            .any(|address| address.prefix.to_string() == "::1/128")
    );
}

#[test]
fn ports_are_isolated_when_containers_must_not_reach_each_other() {
    let Some(lab) = Lab::new() else { return };
    let mut network = dual('a');
    option(&mut network).inter_container = false;
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let (one, two) = (Container::new(), Container::new());
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    let second = endpoint(&network, 3, &["192.0.2.3/24", "fd00:2::3/64"]);
    lab.attach(&one, &[(&network, &first)]);
    lab.attach(&two, &[(&network, &second)]);
    for (container, address) in [(&one, "192.0.2.2"), (&two, "fd00:2::3")] {
        udp(&lab.host, &container.namespace, address);
    }
    for address in ["192.0.2.3", "fd00:2::3"] {
        let error = try_udp(&one.namespace, &two.namespace, address).unwrap_err();
        assert!(
            is_lost(&error) || error.raw_os_error() == Some(113),
            "{error}"
        );
    }
}

#[test]
fn packets_of_a_container_to_itself_return_through_the_bridge() {
    const EXPERIMENTS: u16 = 0x88b5;
    let Some(lab) = Lab::new() else { return };
    let network = bridge('a', &[("192.0.2.0/24", Some("192.0.2.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24"]);
    lab.attach(&container, &[(&network, &first)]);
    let index = container.link("eth0").unwrap().index;
    // A container reaches its own published ports like that: the port is in hairpin mode.
    let open = || PacketSocket::open(index, EXPERIMENTS, &[]).unwrap();
    let socket = container.namespace.run(open).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let mut buffer = [0; 100];
    loop {
        assert!(Instant::now() < end, "nothing comes back");
        socket.send(BROADCAST, b"text").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let mut received = std::iter::from_fn(|| socket.receive(&mut buffer).ok());
        if received.any(|packet| !packet.outgoing) {
            break;
        }
    }
    assert!(buffer.starts_with(b"text"));
}

#[test]
fn a_network_has_one_family_or_the_other() {
    let Some(lab) = Lab::new() else { return };
    let network = bridge('a', &[("fd00:2::/64", Some("fd00:2::1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let (one, two) = (Container::new(), Container::new());
    let first = endpoint(&network, 2, &["fd00:2::2/64"]);
    let second = endpoint(&network, 3, &["fd00:2::3/64"]);
    lab.attach(&one, &[(&network, &first)]);
    lab.attach(&two, &[(&network, &second)]);
    udp(&one.namespace, &two.namespace, "fd00:2::3");
    udp(&lab.host, &two.namespace, "fd00:2::3");
    let addresses = batches(&one.namespace, |batches| batches.addresses().unwrap());
    let ipv4 = |address: &&keelson_netlink::Address| address.prefix.address.is_ipv4();
    let found: Vec<_> = addresses.iter().filter(ipv4).collect();
    assert_eq!(found.len(), 1, "loopback's only: {found:?}");
}

#[test]
fn a_container_without_ipv6_gets_none() {
    let Some(lab) = Lab::new() else { return };
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let container = Container::new();
    // Like `--sysctl net.ipv6.conf.all.disable_ipv6=1`.
    let disable = || std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    container.namespace.run(disable).unwrap().unwrap();
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    let connections = [(&network, &first)];
    let attached = lab.kernel.attach(&container.fd, &connections, || ());
    assert!(!lab.block_on(attached).unwrap().ipv6);
    udp(&lab.host, &container.namespace, "192.0.2.2");
    let addresses = batches(&container.namespace, |batches| batches.addresses().unwrap());
    let mut addresses = addresses.iter().map(|address| address.prefix.address);
    assert!(addresses.all(|address| address.is_ipv4()));
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
    // An address of an earlier configuration is removed.
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
    // Our own bridge is removed.
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
    // A bridge that can't get its address is removed again.
    let mut network = dual('b');
    network.subnets[1].gateway = Some("ff02::5".parse().unwrap());
    let error = lab.block_on(lab.kernel.ensure(&network)).unwrap_err();
    assert!(error.to_string().contains("ff02::5"), "{error}");
    assert!(lab.link("br-b").is_none());
}

#[test]
fn the_mtu_is_the_requested_one_or_that_of_the_default_route() {
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
        // The default route of a VRF.
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
    // A requested MTU also applies to the bridge; new ports do not change it.
    let mut network = bridge('b', &[("198.51.100.0/24", Some("198.51.100.1"))]);
    option(&mut network).mtu = Some(9000);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    assert_eq!(lab.link("br-b").unwrap().mtu, 9000);
    let container = Container::new();
    let first = endpoint(&network, 2, &["198.51.100.2/24"]);
    lab.attach(&container, &[(&network, &first)]);
    assert_eq!(container.link("eth0").unwrap().mtu, 9000);
    assert_eq!(lab.link("br-b").unwrap().mtu, 9000);
    // A value that no bridge can have only causes a warning.
    let mut network = bridge('c', &[("203.0.113.0/24", Some("203.0.113.1"))]);
    option(&mut network).mtu = Some(70_000);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
}

#[test]
fn forwarding_does_not_stop_router_advertisements_on_uplinks() {
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

#[test]
fn the_function_runs_in_the_same_visit_of_the_namespace() {
    let Some(lab) = Lab::new() else { return };
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24"]);
    // The function runs inside, when everything is set up.
    let inside = || Batches::open().unwrap().find_link("eth0").unwrap();
    let connections = [(&network, &first)];
    let attached = lab.kernel.attach(&container.fd, &connections, inside);
    let attached = lab.block_on(attached).unwrap();
    assert!(attached.ipv6);
    let eth0 = attached.inside.unwrap();
    assert!(eth0.up && eth0.carrier);
}
