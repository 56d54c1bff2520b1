//! The daemon against a real DHCP server, in network namespaces of the real kernel.

mod common;

use std::fs;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{LINK, Net, may_run, wait_for, wait_for_notification};
use keelson_sys::packet::{BROADCAST, ETHERTYPE_ARP, PacketSocket};
use netcfg::dhcp::arp::ArpPacket;
use netcfg::dhcp::machine::StateName;
use nix::sys::signal::Signal;

const RANGE: &str = "--dhcp-range=192.0.2.50,192.0.2.59,10m";

#[test]
fn a_lease_brings_address_route_and_servers() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    // It is ready without any server: a boot does not wait for the network.
    let (daemon, notify) = net.start();
    wait_for_notification(&notify, "READY=1");
    let _server = net.serve(&[
        RANGE,
        "--dhcp-option=option:dns-server,192.0.2.53,192.0.2.54",
        "--dhcp-option=option:ntp-server,192.0.2.123",
        "--dhcp-option=option:domain-search,lan.example,corp.example",
        "--dhcp-option=option:classless-static-route,198.51.100.0/24,192.0.2.9,0.0.0.0/0,192.0.2.1",
        "--dhcp-option=option:mtu,1400",
    ]);
    let address = net.wait_for_address("192.0.2.5");
    wait_for_notification(&notify, &format!("STATUS={LINK}: {address}"));

    let addresses = net.on_client(&format!("-4 addr show dev {LINK}"));
    assert!(addresses.contains("dynamic"), "{addresses}");
    assert!(!addresses.contains("valid_lft forever"), "{addresses}");
    assert!(addresses.contains("mtu 1400"), "{addresses}");
    let routes = net.on_client("-4 route show");
    assert!(
        routes.contains(&format!("default via 192.0.2.1 dev {LINK} proto dhcp")),
        "{routes}"
    );
    assert!(routes.contains("198.51.100.0/24 via 192.0.2.9"), "{routes}");
    let resolv_conf = fs::read_to_string(net.path("run/resolv.conf")).unwrap();
    assert!(resolv_conf.contains("nameserver 192.0.2.53\nnameserver 192.0.2.54\n"));
    assert!(resolv_conf.contains("search lan.example corp.example\n"));
    let time = fs::read_to_string(net.path("run/netcfg/ntp-servers")).unwrap();
    assert_eq!(time, "192.0.2.123\n");
    let dhcp = net.link().unwrap().dhcp4.unwrap();
    assert_eq!(dhcp.state, StateName::Bound);
    let lease = dhcp.lease.unwrap();
    assert_eq!((lease.address, lease.seconds), (address.clone(), Some(600)));
    let loopback = net.on_client("addr show dev lo");
    assert!(loopback.contains("127.0.0.1/8"), "{loopback}");
    let accept_ra = format!("/proc/sys/net/ipv6/conf/{LINK}/accept_ra");
    let accept_ra = net.client.run(|| fs::read_to_string(accept_ra)).unwrap();
    assert_eq!(accept_ra.unwrap(), "2\n");

    // The end does not change the network, and keeps the lease.
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    wait_for_notification(&notify, "STOPPING=1");
    assert_eq!(net.addresses(), [address]);
    assert!(net.path(&format!("state/leases/{LINK}.json")).exists());
}

#[test]
fn a_restarted_server_also_renews_a_lease() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    // T1 of three seconds, so that the test sees several renewals.
    let options = [RANGE, "--dhcp-option=58,3"];
    let server = net.serve(&options);
    let (daemon, _notify) = net.start();
    let address = net.wait_for_address("192.0.2.5");
    let granted = |net: &Net| net.link()?.dhcp4?.lease.map(|lease| lease.granted);
    let first = wait_for("a lease in the status", || granted(&net));
    let seen = server.wait_for_line(0, &["DHCPACK"]);
    let seen = server.wait_for_line(seen, &["DHCPREQUEST"]);
    server.wait_for_line(seen, &["DHCPACK"]);
    wait_for("a renewed lease", || granted(&net).filter(|at| *at > first));

    server.end(Signal::SIGTERM);
    let server = net.serve(&options);
    server.wait_for_line(0, &["DHCPACK"]);
    assert_eq!(net.addresses(), [address]);
    let refreshed = wait_for("a lease of the new server", || {
        granted(&net).filter(|at| *at > first + 3)
    });
    assert!(refreshed > first);
    let lines = daemon.lines();
    assert!(
        !lines.iter().any(|line| line.contains("WARN")),
        "{lines:#?}"
    );
}

#[test]
fn a_flapping_carrier_keeps_the_address_and_confirms_the_lease() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let server = net.serve(&[RANGE]);
    let (_daemon, _notify) = net.start();
    let address = net.wait_for_address("192.0.2.5");
    let mut seen = server.wait_for_line(0, &["DHCPACK"]);
    for _ in 0..3 {
        net.on_server("link set srv0 down");
        wait_for("the loss of the carrier in the status", || {
            let link = net.link()?;
            let down = link.dhcp4.is_some_and(|dhcp| dhcp.state == StateName::Down);
            (down && !link.carrier).then_some(())
        });
        assert_eq!(net.addresses(), std::slice::from_ref(&address));
        net.on_server("link set srv0 up");
        // INIT-REBOOT: a request without a discovery before it.
        let request = server.wait_for_line(seen, &["DHCPREQUEST"]);
        let discoveries = server.lines()[seen..request]
            .iter()
            .filter(|line| line.contains("DHCPDISCOVER"))
            .count();
        assert_eq!(discoveries, 0);
        seen = server.wait_for_line(request, &["DHCPACK"]);
        wait_for("the lease bound again", || {
            let dhcp = net.link()?.dhcp4?;
            (dhcp.state == StateName::Bound).then_some(())
        });
    }
    assert_eq!(net.addresses(), [address]);
}

#[test]
fn without_a_server_it_warns_and_continues() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let (mut daemon, _notify) = net.start();
    daemon.wait_for_line(
        0,
        &["WARN", "no DHCP server answers", "link=uplink", "seconds="],
    );
    assert!(daemon.is_running());
    let problems = wait_for("the problem in the status", || {
        Some(net.status()?.problems).filter(|problems| !problems.is_empty())
    });
    assert!(problems[0].contains("no DHCP server"), "{problems:?}");
    assert!(net.path("run/resolv.conf").exists());
    // The server starts later.
    let _server = net.serve(&[RANGE]);
    net.wait_for_address("192.0.2.5");
    wait_for("the problem to go", || {
        net.status()?.problems.is_empty().then_some(())
    });
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn a_refused_lease_is_replaced() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let server = net.serve(&[RANGE]);
    let (daemon, _notify) = net.start();
    let address = net.wait_for_address("192.0.2.5");
    server.end(Signal::SIGTERM);
    // The cable is moved to another network, whose server refuses the address.
    net.on_server("link set srv0 down");
    daemon.wait_for_line(0, &["carrier=false"]);
    net.on_server("addr flush dev srv0");
    net.on_server("addr add 198.51.100.1/24 dev srv0");
    net.on_server("link set srv0 up");
    let _server = net.serve(&["--dhcp-range=198.51.100.50,198.51.100.59,10m"]);
    daemon.wait_for_line(0, &["WARN", "refused"]);
    net.wait_for_address("198.51.100.5");
    assert!(!net.addresses().contains(&address));
    let routes = wait_for("the new default route", || {
        let routes = net.on_client("-4 route show");
        routes
            .contains("default via 198.51.100.1")
            .then_some(routes)
    });
    assert!(!routes.contains("192.0.2."), "{routes}");
}

#[test]
fn a_killed_daemon_finds_its_lease_again() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let server = net.serve(&[RANGE]);
    let (daemon, _notify) = net.start();
    let address = net.wait_for_address("192.0.2.5");
    wait_for("the lease on disk", || {
        net.path(&format!("state/leases/{LINK}.json"))
            .exists()
            .then_some(())
    });
    daemon.end(Signal::SIGKILL);
    let seen = server.line_count();
    let (daemon, notify) = net.start();
    wait_for_notification(&notify, "READY=1");
    // In use from the first moment, and confirmed without a discovery.
    assert_eq!(net.addresses(), std::slice::from_ref(&address));
    let request = server.wait_for_line(seen, &["DHCPREQUEST", "192.0.2.5"]);
    server.wait_for_line(request, &["DHCPACK"]);
    daemon.wait_for_line(0, &["DHCP lease"]);
    assert_eq!(net.addresses(), [address]);
    let lines = daemon.lines();
    assert!(
        !lines.iter().any(|line| line.contains("remove address")),
        "{lines:#?}"
    );
}

#[test]
fn an_address_in_use_is_declined() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let server = net.serve(&[RANGE]);
    // A machine that claims every probed address, until it is stopped.
    let stop = Arc::new(AtomicBool::new(false));
    let index = net.server_index();
    let claimant = net.in_server({
        let stop = Arc::clone(&stop);
        move || claim_addresses(index, &stop)
    });
    let (daemon, _notify) = net.start();
    daemon.wait_for_line(
        0,
        &[
            "WARN",
            "another machine uses the address",
            "02:00:00:00:00:66",
        ],
    );
    server.wait_for_line(0, &["DHCPDECLINE"]);
    assert_eq!(net.addresses(), [""; 0]);
    stop.store(true, Ordering::Relaxed);
    claimant.join().unwrap();
    net.wait_for_address("192.0.2.5");
}

fn claim_addresses(index: u32, stop: &AtomicBool) {
    let socket = PacketSocket::open(index, ETHERTYPE_ARP, &[]).unwrap();
    let mut buffer = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        let Ok(received) = socket.receive(&mut buffer) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let packet = ArpPacket::parse(&buffer[..received.length]);
        if let Some(probe) = packet.filter(|packet| packet.sender.is_unspecified()) {
            let claim = ArpPacket {
                request: false,
                sender_mac: [2, 0, 0, 0, 0, 0x66],
                sender: probe.target,
                target: probe.target,
            };
            socket.send(BROADCAST, &claim.to_bytes()).unwrap();
        }
    }
}

#[test]
fn switching_dhcp_off_releases_the_lease() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let server = net.serve(&[RANGE]);
    let (daemon, _notify) = net.start();
    net.wait_for_address("192.0.2.5");
    net.configure(&format!(
        "[[network.link]]\nname = '{LINK}'\naddresses = ['192.0.2.200/24']\n"
    ));
    daemon.signal(Signal::SIGHUP);
    server.wait_for_line(0, &["DHCPRELEASE"]);
    wait_for("only the static address", || {
        (net.addresses() == ["192.0.2.200/24"]).then_some(())
    });
    assert!(!net.path(&format!("state/leases/{LINK}.json")).exists());
}

#[test]
fn a_router_outside_of_the_prefix_is_reached() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    // 192.0.2.50/28, and a router that is on the link but not in 192.0.2.48/28.
    let _server = net.serve(&[RANGE, "--dhcp-option=1,255.255.255.240"]);
    let (_daemon, _notify) = net.start();
    let address = net.wait_for_address("192.0.2.5");
    assert!(address.ends_with("/28"), "{address}");
    let routes = wait_for("the default route", || {
        let routes = net.on_client("-4 route show");
        routes.contains("default").then_some(routes)
    });
    assert!(
        routes.contains(&format!("192.0.2.1 dev {LINK} proto dhcp scope link")),
        "{routes}"
    );
    assert!(
        routes.contains(&format!("default via 192.0.2.1 dev {LINK} proto dhcp")),
        "{routes}"
    );
    let problems = net.status().unwrap().problems;
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn options_in_parts_and_in_other_fields_are_joined() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let stop = Arc::new(AtomicBool::new(false));
    let server = net.in_server({
        let stop = Arc::clone(&stop);
        move || serve_in_parts(&stop)
    });
    let (_daemon, _notify) = net.start();
    net.wait_for_address("192.0.2.50/24");
    let routes = wait_for("the last route", || {
        let routes = net.on_client("-4 route show");
        routes.contains("10.8.0.0/16").then_some(routes)
    });
    for route in [
        "default via 192.0.2.1",
        "10.9.0.0/16 via 192.0.2.1",
        "10.8.0.0/16 via 198.51.100.1",
        "198.51.100.1 dev",
    ] {
        assert!(routes.contains(route), "{route}: {routes}");
    }
    let resolv_conf = wait_for("the search list", || {
        let text = fs::read_to_string(net.path("run/resolv.conf")).ok()?;
        text.contains("search").then_some(text)
    });
    assert!(
        resolv_conf.contains("search a.example b.example\n"),
        "{resolv_conf}"
    );
    stop.store(true, Ordering::Relaxed);
    server.join().unwrap();
}

/// A DHCP server that splits its options 119 and 121 into separate parts, inside of values, and
/// continues them in the fields for the boot file and the server's name.
fn serve_in_parts(stop: &AtomicBool) {
    let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
    socket.set_broadcast(true).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::BindToDevice,
        &"srv0".into(),
    )
    .unwrap();
    let routes = [
        &[0, 192, 0, 2, 1][..],
        &[16, 10, 9, 192, 0, 2, 1],
        &[16, 10, 8, 198, 51, 100, 1],
    ]
    .concat();
    let search = b"\x01a\x07example\x00\x01b\xc0\x02";
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let request = &buffer[..length];
        let mut kinds = request[240..].windows(3);
        let kind = match kinds.find(|window| window[..2] == [53, 1]) {
            Some([_, _, 1]) => 2,
            Some([_, _, 3]) => 5,
            _ => continue,
        };
        let mut reply = vec![0; 240];
        reply[..3].copy_from_slice(&[2, 1, 6]);
        reply[4..8].copy_from_slice(&request[4..8]);
        reply[16..20].copy_from_slice(&[192, 0, 2, 50]);
        reply[28..44].copy_from_slice(&request[28..44]);
        reply[236..240].copy_from_slice(&[99, 130, 83, 99]);
        let part = |code: u8, value: &[u8]| [&[code, value.len() as u8], value].concat();
        for option in [
            part(53, &[kind]),
            part(52, &[3]),
            part(54, &[192, 0, 2, 1]),
            part(121, &routes[..3]),
            part(51, &600u32.to_be_bytes()),
            part(121, &routes[3..9]),
            part(119, &search[..4]),
            part(1, &[255, 255, 255, 0]),
        ] {
            reply.extend(option);
        }
        reply.push(255);
        let file = [
            part(121, &routes[9..14]),
            part(119, &search[4..12]),
            vec![255],
        ]
        .concat();
        reply[108..108 + file.len()].copy_from_slice(&file);
        let server_name = [part(119, &search[12..]), part(121, &routes[14..])].concat();
        reply[44..44 + server_name.len()].copy_from_slice(&server_name);
        socket.send_to(&reply, "255.255.255.255:68").unwrap();
    }
}
