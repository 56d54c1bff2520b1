//! Changes over time: endpoints come and go, bridges vanish, containers change their interfaces,
//! engines crash.

use std::time::{Duration, Instant};

use keelson_netlink::{Batches, LinkChange, LinkId, Request, Route, VirtualKind, VirtualLink};

use super::lab::*;
use crate::{Endpoint, Network};

fn pair(lab: &Lab) -> (Network, Container, Endpoint) {
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    lab.attach(&container, &[(&network, &first)]);
    (network, container, first)
}

#[test]
fn detaching_works_with_and_without_the_namespace_and_twice() {
    let Some(lab) = Lab::new() else { return };
    let (network, container, first) = pair(&lab);
    let detach = |namespace| {
        lab.block_on(lab.kernel.detach(&network, &first, namespace))
            .unwrap()
    };
    detach(Some(&container.fd));
    assert!(lab.link("vetha2").is_none() && container.link("eth0").is_none());
    detach(Some(&container.fd));
    // The same endpoint in the next run, whose container has ended before it is detached.
    let container = Container::new();
    lab.attach(&container, &[(&network, &first)]);
    drop(container);
    detach(None);
    lab.wait_gone("vetha2");
    detach(None);
    // Nothing passes any more, although its namespace still exists.
    let container = Container::new();
    lab.attach(&container, &[(&network, &first)]);
    udp(&lab.host, &container.namespace, "192.0.2.2");
    detach(None);
    let error = try_udp(&lab.host, &container.namespace, "192.0.2.2").unwrap_err();
    let missing = [Some(99), Some(113)];
    assert!(
        is_lost(&error) || missing.contains(&error.raw_os_error()),
        "{error}"
    );
    lab.wait_gone("vetha2");
    // A link of that name that is not ours is kept.
    let kind = VirtualKind::Veth {
        peer: "other".to_owned(),
        peer_mac: None,
        peer_mtu: None,
    };
    let alias = LinkChange {
        alias: Some("somebody's".to_owned()),
        ..LinkChange::default()
    };
    lab.run(&[
        Request::CreateLink(VirtualLink::new("vetha2", kind)),
        Request::ChangeLink(name("vetha2"), alias),
    ]);
    run(
        &lab.host,
        &[Request::ChangeLink(name("vetha2"), LinkChange::up())],
    );
    detach(None);
    assert!(lab.link("vetha2").unwrap().up);
}

#[test]
fn a_container_may_rename_and_remove_its_interface() {
    let Some(lab) = Lab::new() else { return };
    let (network, container, first) = pair(&lab);
    let rename = || {
        let index = Batches::open()
            .unwrap()
            .find_link("eth0")
            .unwrap()
            .unwrap()
            .index;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let netlink = keelson_netlink::Netlink::connect().unwrap();
            netlink.set_down(index).await.unwrap();
            netlink.rename(index, "wan").await.unwrap();
        });
    };
    container.namespace.run(rename).unwrap();
    assert!(container.link("wan").is_some());
    lab.block_on(lab.kernel.detach(&network, &first, Some(&container.fd)))
        .unwrap();
    assert!(container.link("wan").is_none() && lab.link("vetha2").is_none());
    // Connected again, and removed by the container.
    lab.attach(&container, &[(&network, &first)]);
    run(&container.namespace, &[Request::RemoveLink(name("eth0"))]);
    assert!(lab.link("vetha2").is_none());
    let wanted = [(&network, &first)];
    lab.block_on(lab.kernel.set_default_routes(&container.fd, &wanted))
        .unwrap();
    lab.block_on(lab.kernel.detach(&network, &first, Some(&container.fd)))
        .unwrap();
    lab.attach(&container, &[(&network, &first)]);
    udp(&lab.host, &container.namespace, "192.0.2.2");
}

#[test]
fn a_failure_leaves_no_interface() {
    let Some(lab) = Lab::new() else { return };
    let network = dual('a');
    let other = bridge('b', &[("198.51.100.0/24", Some("198.51.100.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    lab.block_on(lab.kernel.ensure(&other)).unwrap();
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24"]);
    let mut second = endpoint(&other, 2, &["198.51.100.2/24"]);
    // Both want to be eth0.
    let connections = [(&network, &first), (&other, &second)];
    let failed = lab.block_on(lab.kernel.attach(&container.fd, &connections, || ()));
    let error = failed.unwrap_err().to_string();
    assert!(
        error.contains("vethb2") && error.contains("exists"),
        "{error}"
    );
    let clean = || {
        assert!(lab.link("vetha2").is_none() && lab.link("vethb2").is_none());
        let names: Vec<_> = batches(&container.namespace, |batches| batches.links().unwrap());
        assert_eq!(names.len(), 1, "lo only: {names:?}");
    };
    clean();
    // A parameter that the interface does not have.
    second.interface = "eth1".to_owned();
    second
        .asked
        .sysctls
        .insert("net.ipv4.conf.IFNAME.none".into(), "1".into());
    let connections = [(&network, &first), (&other, &second)];
    let failed = lab.block_on(lab.kernel.attach(&container.fd, &connections, || ()));
    let error = failed.unwrap_err().to_string();
    assert!(error.contains("net.ipv4.conf.eth1.none"), "{error}");
    clean();
    second.asked.sysctls.clear();
    lab.attach(&container, &[(&network, &first), (&other, &second)]);
    udp(&lab.host, &container.namespace, "198.51.100.2");
}

#[test]
fn the_gateway_moves_when_networks_come_and_go() {
    let Some(lab) = Lab::new() else { return };
    let (network, container, mut first) = pair(&lab);
    let other = bridge('b', &[("198.51.100.0/24", Some("198.51.100.1"))]);
    lab.block_on(lab.kernel.ensure(&other)).unwrap();
    let defaults = || {
        let routes = batches(&container.namespace, |batches| batches.routes().unwrap());
        let defaults = routes
            .iter()
            .filter(|route: &&Route| route.destination.length == 0);
        let mut found: Vec<_> = defaults
            .map(|route| route.gateway.unwrap().to_string())
            .collect();
        found.sort();
        found
    };
    assert_eq!(defaults(), ["192.0.2.1", "fd00:2::1"]);
    // A further network takes over IPv4; IPv6 is unchanged.
    let mut second = endpoint(&other, 2, &["198.51.100.2/24"]);
    second.interface = "eth1".to_owned();
    first.default_ipv4 = false;
    lab.attach(&container, &[(&other, &second)]);
    let set = |connections: &[(&Network, &Endpoint)]| {
        let set = lab.kernel.set_default_routes(&container.fd, connections);
        lab.block_on(set).unwrap();
    };
    set(&[(&network, &first), (&other, &second)]);
    assert_eq!(defaults(), ["198.51.100.1", "fd00:2::1"]);
    assert_eq!(
        setting(&container.namespace, "ipv4/conf/eth0/rp_filter"),
        "2"
    );
    set(&[(&network, &first), (&other, &second)]);
    assert_eq!(defaults(), ["198.51.100.1", "fd00:2::1"]);
    // It is removed, and the first one takes over.
    lab.block_on(lab.kernel.detach(&other, &second, Some(&container.fd)))
        .unwrap();
    first.default_ipv4 = true;
    set(&[(&network, &first)]);
    assert_eq!(defaults(), ["192.0.2.1", "fd00:2::1"]);
    // No gateway at all.
    first.default_ipv4 = false;
    first.default_ipv6 = false;
    set(&[(&network, &first)]);
    assert!(defaults().is_empty());
}

#[test]
fn an_internal_network_has_no_default_route_and_connecting_fails_at_once() {
    let Some(lab) = Lab::new() else { return };
    let mut network = dual('a');
    network.internal = true;
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    lab.attach(&container, &[(&network, &first)]);
    udp(&lab.host, &container.namespace, "192.0.2.2");
    let connect = || {
        let address = "203.0.113.1:80".parse().unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))
    };
    let begun = Instant::now();
    let error = container.namespace.run(connect).unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(101), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_bridge_that_vanishes_is_created_again_with_its_ports() {
    let Some(lab) = Lab::new() else { return };
    let (network, container, first) = pair(&lab);
    let second = endpoint(&network, 3, &["192.0.2.3/24", "fd00:2::3/64"]);
    let gone = endpoint(&network, 4, &["192.0.2.4/24"]);
    let other = Container::new();
    lab.attach(&other, &[(&network, &second)]);
    udp(&container.namespace, &other.namespace, "192.0.2.3");
    udp(&lab.host, &container.namespace, "192.0.2.2");
    let mac = lab.link("br-a").unwrap().mac;
    lab.block_on(async {
        let mut watch = lab.kernel.watch().await.unwrap();
        lab.run(&[Request::RemoveLink(name("br-a"))]);
        let vanished = tokio::time::timeout(Duration::from_secs(20), watch.vanished());
        let vanished = vanished.await.unwrap().unwrap();
        assert_eq!(vanished, std::slice::from_ref(&network.id));
    });
    let error = try_udp(&container.namespace, &other.namespace, "192.0.2.3").unwrap_err();
    assert!(
        is_lost(&error) || error.raw_os_error() == Some(113),
        "{error}"
    );
    let endpoints = [first, second, gone];
    lab.block_on(lab.kernel.restore(&network, &endpoints))
        .unwrap();
    udp(&container.namespace, &other.namespace, "192.0.2.3");
    udp(&container.namespace, &other.namespace, "fd00:2::3");
    udp(&container.namespace, &lab.host, "192.0.2.1");
    // Containers already know its address.
    assert_eq!(lab.link("br-a").unwrap().mac, mac);
    assert!(mac.is_some());
    // A removal by us is not reported.
    let removed = dual('b');
    lab.block_on(lab.kernel.ensure(&removed)).unwrap();
    lab.block_on(async {
        let mut watch = lab.kernel.watch().await.unwrap();
        lab.kernel.remove(&removed).await.unwrap();
        lab.run(&[Request::RemoveLink(name("br-a"))]);
        let vanished = tokio::time::timeout(Duration::from_secs(20), watch.vanished());
        let vanished = vanished.await.unwrap().unwrap();
        assert_eq!(vanished, std::slice::from_ref(&network.id));
    });
    // A start creates the bridge again, too.
    let third = Container::new();
    let endpoint = endpoint(&network, 5, &["192.0.2.5/24"]);
    lab.attach(&third, &[(&network, &endpoint)]);
    udp(&lab.host, &third.namespace, "192.0.2.5");
}

#[test]
fn a_sweep_removes_only_unused_links_of_ours() {
    let Some(lab) = Lab::new() else { return };
    let (network, _container, first) = pair(&lab);
    let dead = dual('b');
    lab.block_on(lab.kernel.ensure(&dead)).unwrap();
    let holder = Container::new();
    let second = endpoint(&network, 3, &["192.0.2.3/24"]);
    lab.attach(&holder, &[(&network, &second)]);
    // Links of another engine on this machine, and of others.
    let other = lab
        .host
        .run(|| crate::kernel::Kernel::connect("other"))
        .unwrap()
        .unwrap();
    let theirs = dual('c');
    lab.block_on(other.ensure(&theirs)).unwrap();
    lab.run(&[Request::CreateLink(VirtualLink::new(
        "br-d",
        VirtualKind::Bridge,
    ))]);
    let sweep = |host_links| {
        let swept = lab.kernel.sweep(vec![network.id.clone()], host_links);
        lab.block_on(swept).unwrap()
    };
    // Not all containers are known: the link may belong to a running one.
    assert_eq!(sweep(None), ["br-b"]);
    assert!(lab.link("vetha3").is_some());
    assert_eq!(sweep(Some(vec![first.host_link.clone()])), ["vetha3"]);
    for left in ["br-a", "br-c", "br-d", "vetha2"] {
        assert!(lab.link(left).is_some(), "{left}");
    }
    assert!(lab.link("vetha3").is_none() && lab.link("br-b").is_none());
}

#[test]
fn a_new_owner_of_an_address_is_announced() {
    let Some(lab) = Lab::new() else { return };
    let (network, container, first) = pair(&lab);
    let neighbour = Container::new();
    let second = endpoint(&network, 3, &["192.0.2.3/24", "fd00:2::3/64"]);
    lab.attach(&neighbour, &[(&network, &second)]);
    for (address, _) in [("192.0.2.2", 4), ("fd00:2::2", 6)] {
        udp(&neighbour.namespace, &container.namespace, address);
        udp(&lab.host, &container.namespace, address);
    }
    // The container ends; the next one gets its addresses with another hardware address.
    lab.block_on(lab.kernel.detach(&network, &first, None))
        .unwrap();
    let next = Container::new();
    let mut other = endpoint(&network, 4, &["192.0.2.2/24", "fd00:2::2/64"]);
    other.mac = Some([2, 0, 0, 0, 9, 9]);
    lab.attach(&next, &[(&network, &other)]);
    let known = |namespace: &keelson_netlink::Namespace, address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        let list = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let netlink = keelson_netlink::Netlink::connect().unwrap();
                netlink.neighbours().await.unwrap()
            })
        };
        let found = namespace.run(list).unwrap();
        let entry = found.into_iter().find(|entry| entry.address == address);
        entry.and_then(|entry| entry.mac)
    };
    let end = Instant::now() + Duration::from_secs(10);
    for address in ["192.0.2.2", "fd00:2::2"] {
        for namespace in [&neighbour.namespace, &lab.host] {
            // Nothing is sent except the announcement.
            while known(namespace, address) != other.mac {
                assert!(
                    Instant::now() < end,
                    "{address}: {:?}",
                    known(namespace, address)
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    // After a restart of the engine.
    let connections = [(&network, &other)];
    let announced = lab.kernel.announce(&next.fd, &connections);
    lab.block_on(announced).unwrap();
    lab.block_on(lab.kernel.detach(&network, &other, None))
        .unwrap();
}

#[test]
fn a_start_does_not_wait_for_a_port_that_stays_down() {
    let Some(lab) = Lab::new() else { return };
    let network = dual('a');
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    // A bridge that is switched off forwards nothing.
    let off = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    lab.run(&[Request::ChangeLink(LinkId::Name("br-a".to_owned()), off)]);
    let container = Container::new();
    let first = endpoint(&network, 2, &["192.0.2.2/24", "fd00:2::2/64"]);
    let begun = Instant::now();
    lab.attach(&container, &[(&network, &first)]);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    udp(&lab.host, &container.namespace, "192.0.2.2");
}
