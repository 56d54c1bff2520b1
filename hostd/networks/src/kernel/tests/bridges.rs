//! Bridge networks: their bridges, and who reaches whom.

use std::time::{Duration, Instant};

use keelson_netlink::Batches;
use keelson_sys::packet::{BROADCAST, PacketSocket};

use super::lab::*;
use crate::{Driver, Network};

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
fn everything_happens_in_one_visit_of_the_namespace() {
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
