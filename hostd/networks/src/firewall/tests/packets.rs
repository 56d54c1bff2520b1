//! Published ports, tested with packets.

use keelson_model::spec::Protocol;

use super::world::*;
use crate::firewall::*;
use crate::ports::{Facts, Holder, Ports};

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let Some(world) = World::new(&[1, 2], Transit::default()) else {
        return;
    };
    let (first, second) = (network(1), network(2));
    let (own, sibling, other) = (
        world.container(1, 2),
        world.container(1, 3),
        world.container(2, 2),
    );
    let published = everywhere(8080, 80);
    let all = elements(&[&first, &second], &[(&first, endpoint(1, 2), &published)]);
    world.restore(all);
    // The source of outside clients is kept.
    reaches(&world.neighbour, "192.0.2.1:8080", "192.0.2.9");
    reaches(&world.neighbour, "[2001:db8:2::1]:8080", "2001:db8:2::9");
    // All other clients are seen as the gateway.
    let (gateway4, gateway6) = ("172.30.1.1", "2001:db8:30:1::1");
    for from in [&own, &sibling, &other, &world.host] {
        reaches(from, "192.0.2.1:8080", gateway4);
        reaches(from, "[2001:db8:2::1]:8080", gateway6);
        reaches(from, "172.30.1.1:8080", gateway4);
        reaches(from, "[2001:db8:30:1::1]:8080", gateway6);
    }
    reaches(&world.host, "127.0.0.1:8080", gateway4);
    reaches(&world.host, "127.1.2.3:8080", gateway4);
    // Other ports belong to the host.
    is_refused(&world.neighbour, "192.0.2.1:8081");
}

/// On a host that filters bridged packets, as Docker's hosts do. Our own machine does not load that
/// module.
#[test]
fn filtering_of_bridged_packets_does_no_harm() {
    let Some(world) = World::new(&[1, 2], Transit::default()) else {
        return;
    };
    if !world.bridges_ask_filters(true) {
        eprintln!("this kernel has no br_netfilter");
        return;
    }
    let (first, second) = (with(1, |bridge| bridge.inter_container = false), network(2));
    let (own, sibling, other) = (
        world.container(1, 2),
        world.container(1, 3),
        world.container(2, 2),
    );
    // This makes a container's own published port work there.
    let hairpin = "for port in v1x2 v1x3; do ip link set $port type bridge_slave hairpin on; done";
    shell(&world.host, hairpin);
    let published = everywhere(8080, 80);
    world.restore(elements(
        &[&first, &second],
        &[(&first, endpoint(1, 2), &published)],
    ));
    reaches(&world.neighbour, "192.0.2.1:8080", "192.0.2.9");
    for from in [&own, &other, &world.host] {
        reaches(from, "192.0.2.1:8080", "172.30.1.1");
        reaches(from, "[2001:db8:2::1]:8080", "2001:db8:30:1::1");
    }
    // Its address may be kept: the answers pass through the host.
    reaches(&sibling, "192.0.2.1:8080", "172.30.1.3");
    is_cut_off(&sibling, "172.30.1.2:81");
    is_cut_off(&other, "172.30.1.2:81");
}

#[test]
fn loopback_of_ipv6_is_refused_at_once() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = network(1);
    let _container = world.container(1, 2);
    let published = everywhere(8080, 80);
    // With the sockets that reserve the ports: the UDP socket would silently take what is sent to
    // it.
    let ports = Ports::new();
    let asked: Vec<_> = published
        .iter()
        .map(|binding| keelson_model::spec::PublishedPort {
            host: Some(binding.host),
            host_ports: Some(keelson_model::spec::PortRange {
                first: 8080,
                last: 8080,
            }),
            ..binding.asked.clone()
        })
        .collect();
    let endpoint = endpoint(1, 2);
    let facts = Facts::of([(&first, &endpoint)]);
    let holder = Holder { id: "1", name: "a" };
    let reserve = || ports.reserve(holder, &asked, &[], &facts);
    let bindings = world.host.run(reserve).unwrap().unwrap();
    assert_eq!(bindings.len(), 4);
    world.restore(elements(&[&first], &[(&first, endpoint, &bindings)]));
    is_refused(&world.host, "[::1]:8080");
    reaches(&world.host, "127.0.0.1:8080", "172.30.1.1");
    reaches(&world.host, "[2001:db8:2::1]:8080", "2001:db8:30:1::1");
    // Other programs on ::1 are not affected.
    serve(&world.host, 9090);
    reaches(&world.host, "[::1]:9090", "::1");
}

#[test]
fn a_port_at_one_address_is_closed_at_others() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = network(1);
    let container = world.container(1, 2);
    let published = [
        binding("127.0.0.1", 8081, 80, Protocol::Tcp),
        binding("127.0.0.1", 8081, 80, Protocol::Udp),
        binding("192.0.2.1", 8082, 81, Protocol::Tcp),
        binding("192.0.2.1", 8082, 81, Protocol::Udp),
    ];
    world.restore(elements(&[&first], &[(&first, endpoint(1, 2), &published)]));
    reaches(&world.host, "127.0.0.1:8081", "172.30.1.1");
    reaches(&world.neighbour, "192.0.2.1:8082", "192.0.2.9");
    reaches(&world.host, "192.0.2.1:8082", "172.30.1.1");
    for from in [&world.neighbour, &container] {
        is_refused(from, "192.0.2.1:8081");
    }
    is_refused(&world.host, "127.0.0.1:8082");
    is_refused(&world.neighbour, "[2001:db8:2::1]:8082");
}

/// CVE-2020-8558, and ports published at 127.0.0.1.
#[test]
fn loopback_is_not_reached_over_a_wire() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = network(1);
    let (container, _published) = (world.container(1, 2), world.container(1, 3));
    let published = [
        binding("127.0.0.1", 8081, 80, Protocol::Tcp),
        binding("127.0.0.1", 8081, 80, Protocol::Udp),
    ];
    serve(&world.host, 9090);
    // The worst case for the wire; bridges always have this setting.
    shell(
        &world.host,
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
    );
    for (attacker, by, from) in [
        (&world.neighbour, "192.0.2.1", "192.0.2.9"),
        (&container, "172.30.1.1", "172.30.1.2"),
    ] {
        let commands = format!(
            "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
            ip addr del 127.0.0.1/8 dev lo
            ip route add 127.0.0.1 via {by} dev eth0 src {from}"
        );
        shell(attacker, &commands);
    }
    // The attack works where there is no filter.
    reaches_by_tcp(&world.neighbour, "127.0.0.1:9090", "192.0.2.9");
    reaches_by_tcp(&container, "127.0.0.1:9090", "172.30.1.2");
    world.restore(elements(&[&first], &[(&first, endpoint(1, 3), &published)]));
    reaches(&world.host, "127.0.0.1:8081", "172.30.1.1");
    for attacker in [&world.neighbour, &container] {
        is_cut_off(attacker, "127.0.0.1:9090");
        is_cut_off(attacker, "127.0.0.1:8081");
    }
}

/// Datagrams of an old connection follow a port that is published later or gets another target.
#[test]
fn datagrams_follow_the_port() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = network(1);
    let (one, two) = (world.container(1, 2), world.container(1, 3));
    let published = [binding("0.0.0.0", 8080, 80, Protocol::Udp)];
    let of = |container| elements_of_endpoint(&first, &endpoint(1, container), &published, false);
    let (at_one, at_two) = (of(2), of(3));
    world.restore(elements_of_network(&first));
    // A connection that has nothing to do with ours, except the port number.
    serve(&world.neighbour, 8080);
    let passing = udp_client(&one, "192.0.2.9:8080");
    let patience = std::time::Duration::from_secs(10);
    assert_eq!(ask(&passing, patience).as_deref(), Ok("192.0.2.1"));
    let flows = || {
        let list = || {
            let mut netfilter = keelson_nftables::Netfilter::open().unwrap();
            netfilter.flows(false, 17, Some(8080)).unwrap()
        };
        world.host.run(list).unwrap()
    };
    let [foreign] = flows().try_into().unwrap();

    let client = udp_client(&world.neighbour, "192.0.2.1:8080");
    let refused = std::io::ErrorKind::ConnectionRefused;
    assert_eq!(ask(&client, patience), Err(refused));
    assert_eq!(flows().len(), 2);
    let nothing = Elements::default();
    world.apply(&at_one, &nothing);
    assert_eq!(ask(&client, patience).as_deref(), Ok("192.0.2.9"));
    // The container goes, and another one has the port.
    world.apply(&nothing, &at_one);
    assert_eq!(flows(), std::slice::from_ref(&foreign));
    assert_eq!(ask(&client, patience), Err(refused));
    world.apply(&at_two, &nothing);
    assert_eq!(ask(&client, patience).as_deref(), Ok("192.0.2.9"));
    let answers: Vec<_> = flows().into_iter().map(|flow| flow.answers).collect();
    assert!(answers.contains(&ip("172.30.1.3")), "{answers:?}");
    // The port moves from one to the other in one transaction.
    world.apply(&at_one, &at_two);
    assert_eq!(ask(&client, patience).as_deref(), Ok("192.0.2.9"));
    let before = flows();
    assert!(before.iter().any(|flow| flow.answers == ip("172.30.1.2")));
    // Connections to the right target are kept.
    let mut all = elements_of_network(&first);
    all.merge(at_one);
    world.restore(all);
    assert_eq!(flows(), before);
    assert!(before.contains(&foreign));
    drop(two);
}

#[test]
fn chains_of_others_that_drop_are_reported() {
    let Some(world) = World::new(&[], Transit::default()) else {
        return;
    };
    let warnings = || {
        world
            .host
            .run(|| world.firewall.warnings())
            .unwrap()
            .unwrap()
    };
    world.restore(Elements::default());
    assert_eq!(warnings(), [""; 0]);
    if listed(&world.host).is_some() {
        shell(
            &world.host,
            "nft add table ip filter
            nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        );
        let warnings = warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("chain FORWARD of nftables' table ip filter"));
    }
}
