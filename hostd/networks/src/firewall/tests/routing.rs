//! Who reaches whom without a published port.

use super::world::*;
use crate::firewall::*;
use keelson_model::mark::PacketMark;

use crate::settings::FilterOptions;
use crate::types::GatewayMode;

/// Ports 80 and 81 are open in each container; 80 is published.
#[test]
fn networks_are_separated_and_not_reached_from_outside() {
    let Some(world) = World::new(&[1, 2], Transit::default()) else {
        return;
    };
    let (first, second) = (network(1), network(2));
    let (one, sibling, other) = (
        world.container(1, 2),
        world.container(1, 3),
        world.container(2, 2),
    );
    // Without a filter the packets arrive, so silence is meaningful.
    reaches(&world.neighbour, "172.30.1.2:80", "192.0.2.9");
    reaches(&other, "[2001:db8:30:1::2]:80", "2001:db8:30:2::2");
    let published = everywhere(8080, 80);
    world.restore(elements(
        &[&first, &second],
        &[(&first, endpoint(1, 2), &published)],
    ));
    for from in [&world.neighbour, &other] {
        for to in ["172.30.1.2:80", "172.30.1.2:81", "[2001:db8:30:1::2]:80"] {
            is_cut_off(from, to);
        }
    }
    is_cut_off(&one, "172.30.2.2:81");
    reaches(&world.host, "172.30.1.2:81", "172.30.1.1");
    reaches(&sibling, "172.30.1.2:81", "172.30.1.3");
    // Packets go out with the host's address, and answers come back.
    serve(&world.neighbour, 7070);
    reaches(&one, "192.0.2.9:7070", "192.0.2.1");
    reaches(&one, "[2001:db8:2::9]:7070", "2001:db8:2::1");
    // A network that is removed is open again: its link is gone by then.
    world.apply(&Elements::default(), &elements_of_network(&first));
    reaches(&world.neighbour, "172.30.1.2:81", "192.0.2.9");
}

#[test]
fn the_source_address_of_outgoing_packets_is_an_option() {
    let Some(world) = World::new(&[1, 2], Transit::default()) else {
        return;
    };
    let first = with(1, |bridge| {
        bridge.source_ipv4 = Some("192.0.2.77".parse().unwrap());
        bridge.source_ipv6 = Some("2001:db8:2::77".parse().unwrap());
    });
    let second = with(2, |bridge| bridge.masquerade = false);
    let (one, other) = (world.container(1, 2), world.container(2, 2));
    shell(
        &world.host,
        "ip addr add 192.0.2.77/24 dev eth0; ip addr add 2001:db8:2::77/64 dev eth0 nodad",
    );
    world.restore(elements(&[&first, &second], &[]));
    serve(&world.neighbour, 7070);
    reaches(&one, "192.0.2.9:7070", "192.0.2.77");
    reaches(&one, "[2001:db8:2::9]:7070", "2001:db8:2::77");
    reaches(&other, "192.0.2.9:7070", "172.30.2.2");
    reaches(&other, "[2001:db8:2::9]:7070", "2001:db8:30:2::2");
    is_cut_off(&world.neighbour, "172.30.2.2:80");
}

#[test]
fn gateway_modes_open_the_documented_ports() {
    let Some(world) = World::new(&[1, 2, 3], Transit::default()) else {
        return;
    };
    let open = with(1, |bridge| bridge.mode_ipv4 = GatewayMode::NatUnprotected);
    let routed = with(2, |bridge| {
        bridge.mode_ipv4 = GatewayMode::Routed;
        bridge.mode_ipv6 = GatewayMode::Routed;
    });
    let usual = with(3, |bridge| bridge.trusted = vec!["eth0".to_owned()]);
    let (_one, two, three) = (
        world.container(1, 2),
        world.container(2, 2),
        world.container(3, 2),
    );
    let published = everywhere(8080, 80);
    let direct = everywhere(0, 80);
    let trusted = everywhere(8083, 80);
    world.restore(elements(
        &[&open, &routed, &usual],
        &[
            (&open, endpoint(1, 2), &published),
            (&routed, endpoint(2, 2), &direct),
            (&usual, endpoint(3, 2), &trusted),
        ],
    ));
    // nat-unprotected: all ports are open to the outside, but not to other networks, and only for
    // its family.
    reaches(&world.neighbour, "172.30.1.2:81", "192.0.2.9");
    is_cut_off(&world.neighbour, "[2001:db8:30:1::2]:81");
    is_cut_off(&three, "172.30.1.2:81");
    reaches(&three, "192.0.2.1:8080", "172.30.1.1");
    // routed: published ports and ICMP, from outside and from other networks.
    reaches(&world.neighbour, "172.30.2.2:80", "192.0.2.9");
    reaches(&world.neighbour, "[2001:db8:30:2::2]:80", "2001:db8:2::9");
    is_cut_off(&world.neighbour, "172.30.2.2:81");
    reaches(&three, "172.30.2.2:80", "172.30.2.1");
    is_cut_off(&three, "172.30.2.2:81");
    assert!(echoes(&world.neighbour, "172.30.2.2"));
    assert!(echoes(&world.neighbour, "2001:db8:30:2::2"));
    assert!(echoes(&three, "172.30.2.2"));
    assert!(!echoes(&world.neighbour, "172.30.3.2"));
    // A routed network uses no address of the host.
    is_refused(&world.neighbour, "192.0.2.1:80");
    serve(&world.neighbour, 7070);
    reaches(&two, "192.0.2.9:7070", "172.30.2.2");
    // Trusted: published ports only.
    reaches(&world.neighbour, "172.30.3.2:80", "192.0.2.9");
    is_cut_off(&world.neighbour, "172.30.3.2:81");
    is_cut_off(&two, "172.30.3.2:80");
}

#[test]
fn internal_and_isolated_networks_have_no_way_out_or_in() {
    let Some(world) = World::new(&[1, 2, 3], Transit::default()) else {
        return;
    };
    let mut internal = network(1);
    internal.internal = true;
    let mut isolated = with(2, |bridge| {
        bridge.mode_ipv4 = GatewayMode::Isolated;
        bridge.mode_ipv6 = GatewayMode::Isolated;
    });
    isolated.internal = true;
    let usual = network(3);
    let (inside, inside_too, apart, other) = (
        world.container(1, 2),
        world.container(1, 3),
        world.container(2, 2),
        world.container(3, 2),
    );
    serve(&world.neighbour, 7070);
    serve(&world.host, 9090);
    let (hidden, published) = (everywhere(8081, 80), everywhere(8083, 80));
    world.restore(elements(
        &[&internal, &isolated, &usual],
        &[
            (&internal, endpoint(1, 2), &hidden),
            (&usual, endpoint(3, 2), &published),
        ],
    ));
    for from in [&inside, &apart] {
        is_cut_off(from, "192.0.2.9:7070");
        is_cut_off(from, "[2001:db8:2::9]:7070");
        is_cut_off(from, "172.30.3.2:80");
        // Nor through a published port of others.
        is_cut_off(from, "192.0.2.1:8083");
    }
    for from in [&world.neighbour, &other] {
        is_cut_off(from, "172.30.1.2:80");
        is_refused(from, "192.0.2.1:8081");
    }
    // The host and the network reach each other; an isolated one does not reach the host at all.
    reaches(&world.host, "172.30.1.2:80", "172.30.1.1");
    reaches(&inside, "172.30.1.1:9090", "172.30.1.2");
    reaches(&inside_too, "172.30.1.2:80", "172.30.1.3");
    is_cut_off(&apart, "172.30.2.1:9090");
    is_cut_off(&apart, "192.0.2.1:9090");
    is_cut_off(&apart, "[2001:db8:2::1]:9090");
}

#[test]
fn containers_that_must_not_talk_reach_published_ports_only() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = with(1, |bridge| bridge.inter_container = false);
    let (one, sibling) = (world.container(1, 2), world.container(1, 3));
    // The bridge itself separates ports by other means; this path leads through the host.
    for (container, other) in [(&one, "172.30.1.3"), (&sibling, "172.30.1.2")] {
        let commands = format!(
            "ip route add {other} via 172.30.1.1
            echo 0 > /proc/sys/net/ipv4/conf/eth0/accept_redirects"
        );
        shell(container, &commands);
    }
    let published = everywhere(8080, 80);
    world.restore(elements(&[&first], &[(&first, endpoint(1, 2), &published)]));
    is_cut_off(&sibling, "172.30.1.2:80");
    reaches(&sibling, "192.0.2.1:8080", "172.30.1.1");
    reaches(&one, "192.0.2.1:8080", "172.30.1.1");
    // The same works where they may talk.
    world.apply(&elements_of_network(&network(1)), &Elements::default());
    reaches(&sibling, "172.30.1.2:80", "172.30.1.3");
}

#[test]
fn the_machine_routes_only_where_configured() {
    let pairs = vec![("eth0".to_owned(), "eth2".to_owned())];
    let transit = Transit {
        drop_ipv4: true,
        drop_ipv6: true,
        between: pairs,
    };
    let Some(world) = World::new(&[1], transit) else {
        return;
    };
    let first = network(1);
    let one = world.container(1, 2);
    // Further networks of the machine, behind other bridges than ours.
    for (link, subnet) in [("eth1", "198.51.100"), ("eth2", "203.0.113")] {
        let commands = format!(
            "ip link add {link} type veth peer name {link}x
            echo 1 > /proc/sys/net/ipv6/conf/{link}/disable_ipv6
            echo 1 > /proc/sys/net/ipv6/conf/{link}x/disable_ipv6
            ip addr add {subnet}.1/24 dev {link}
            ip link set {link}x up
            ip link set {link} up
            ip neigh add {subnet}.8 lladdr 02:00:00:00:00:01 dev {link}"
        );
        shell(&world.host, &commands);
        shell(
            &world.neighbour,
            &format!("ip route add {subnet}.0/24 via 192.0.2.1"),
        );
    }
    let published = everywhere(8080, 80);
    world.restore(elements(&[&first], &[(&first, endpoint(1, 2), &published)]));
    reaches(&world.neighbour, "192.0.2.1:8080", "192.0.2.9");
    serve(&world.neighbour, 7070);
    reaches(&one, "192.0.2.9:7070", "192.0.2.1");
    // The links count the forwarded packets; nothing else is sent to them.
    let sent = |link: &str| {
        let show = || {
            std::process::Command::new("ip")
                .args(["-s", "link", "show", link])
                .output()
        };
        let output = world.host.run(show).unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let before = (sent("eth1"), sent("eth2"));
    for to in ["198.51.100.8:7", "203.0.113.8:7"] {
        let client = udp_client(&world.neighbour, to);
        assert_eq!(
            ask(&client, std::time::Duration::from_millis(300)),
            Err(std::io::ErrorKind::TimedOut)
        );
    }
    assert_eq!(before.0, sent("eth1"));
    assert_ne!(before.1, sent("eth2"));
}

/// Somebody else forwards one family, and continues to.
#[test]
fn each_family_is_forwarded_or_not_by_itself() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = network(1);
    let one = world.container(1, 2);
    // A further network of the machine, behind another bridge than ours.
    shell(
        &world.host,
        "ip link add lan type bridge
        ip addr add 198.51.100.1/24 dev lan
        ip addr add 2001:db8:51::1/64 dev lan nodad
        ip link set lan up",
    );
    let behind = world.behind("lan", "198.51.100.8/24", "2001:db8:51::8/64");
    shell(
        &world.neighbour,
        "ip route add 198.51.100.0/24 via 192.0.2.1
        ip route add 2001:db8:51::/64 via 2001:db8:2::1",
    );
    shell(
        &behind,
        "ip route add default via 198.51.100.1; ip route add default via 2001:db8:51::1",
    );
    serve(&behind, 80);
    serve(&world.neighbour, 7070);
    let (ipv4, ipv6) = ("198.51.100.8:80", "[2001:db8:51::8]:80");
    world.restore(elements(&[&first], &[]));
    reaches(&world.neighbour, ipv4, "192.0.2.9");
    reaches(&world.neighbour, ipv6, "2001:db8:2::9");
    let drop_transit = |ipv6| {
        let change = || world.firewall.drop_transit(ipv6);
        world.host.run(change).unwrap().unwrap();
    };
    drop_transit(true);
    drop_transit(true);
    reaches(&world.neighbour, ipv4, "192.0.2.9");
    is_cut_off(&world.neighbour, ipv6);
    // Containers use both families, and drops stay when the table is replaced.
    world.restore(elements(&[&first], &[]));
    is_cut_off(&world.neighbour, ipv6);
    reaches(&one, "192.0.2.9:7070", "192.0.2.1");
    reaches(&one, "[2001:db8:2::9]:7070", "2001:db8:2::1");
    let repair = || world.firewall.repair(false);
    assert!(!world.host.run(repair).unwrap().unwrap());
    drop_transit(false);
    is_cut_off(&world.neighbour, ipv4);
    reaches(&one, "192.0.2.9:7070", "192.0.2.1");
}

/// Options of the engine: published ports at the containers' own addresses, and packets with a mark.
#[test]
fn direct_routing_and_marked_packets() {
    let options = FilterOptions {
        direct_routing: true,
        accept_mark: Some(PacketMark {
            value: 0x10,
            mask: 0xf0,
        }),
    };
    let Some(world) = World::with_options(&[1, 2], Transit::default(), options) else {
        return;
    };
    let (first, second) = (network(1), network(2));
    let (_one, other) = (world.container(1, 2), world.container(2, 2));
    let published = everywhere(8080, 80);
    let mut all = elements(&[&first, &second], &[]);
    all.merge(elements_of_endpoint(
        &first,
        &endpoint(1, 2),
        &published,
        true,
    ));
    world.restore(all);
    reaches(&world.neighbour, "172.30.1.2:80", "192.0.2.9");
    reaches(&world.neighbour, "[2001:db8:30:1::2]:80", "2001:db8:2::9");
    reaches(&world.neighbour, "192.0.2.1:8080", "192.0.2.9");
    is_cut_off(&world.neighbour, "172.30.1.2:81");
    is_cut_off(&other, "172.30.1.2:80");
    let mark = |value: &str| {
        shell(
            &world.host,
            &format!(
                "nft 'add table inet marks; flush table inet marks;
                add chain inet marks c {{ type filter hook prerouting priority -150; }};
                add rule inet marks c meta mark set {value}'"
            ),
        );
    };
    mark("0x115");
    reaches(&world.neighbour, "172.30.1.2:81", "192.0.2.9");
    mark("0x125");
    is_cut_off(&world.neighbour, "172.30.1.2:81");
}
