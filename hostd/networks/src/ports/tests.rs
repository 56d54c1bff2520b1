//! Reservations, in network namespaces of the tests' own where they need the kernel's ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use keelson_model::spec::{Port, PortRange, Protocol, PublishedPort};
use keelson_netlink::Namespace;
use proptest::prelude::*;

use super::ask::{Side, groups};
use super::*;
use crate::types::Binding;

const ALL4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(number: u16) -> Port {
    Port {
        number,
        protocol: Protocol::Tcp,
    }
}

fn udp(number: u16) -> Port {
    Port {
        number,
        protocol: Protocol::Udp,
    }
}

/// `-p host:range:port`, where 0 means any port.
fn asked(host: &str, first: u16, last: u16, port: Port) -> PublishedPort {
    PublishedPort {
        port,
        host: (!host.is_empty()).then(|| ip(host)),
        host_ports: (first != 0).then_some(PortRange { first, last }),
    }
}

fn facts(ipv4: Option<&str>, ipv6: Option<&str>) -> Facts {
    let side = |address: Option<&str>| {
        address.map(|address| Side {
            container: ip(address),
            routed: false,
            default_binding: None,
        })
    };
    Facts {
        ipv4: side(ipv4),
        ipv6: side(ipv6),
    }
}

fn both() -> Facts {
    facts(Some("172.19.0.2"), Some("fd00::2"))
}

fn only4() -> Facts {
    facts(Some("172.19.0.2"), None)
}

const WEB: Holder<'_> = Holder {
    id: "0123456789abcdef",
    name: "web",
};
const OTHER: Holder<'_> = Holder {
    id: "fedcba9876543210",
    name: "other",
};

fn shell(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Runs a test in a namespace of its own.
fn run(test: impl FnOnce() + Send) {
    if keelson_testing::is_root() {
        let namespace = Namespace::create().unwrap();
        namespace
            .run(|| {
                shell("ip link set lo up");
                test();
            })
            .unwrap();
    }
}

fn places(bindings: &[Binding]) -> Vec<String> {
    let place = |binding: &Binding| {
        let Binding {
            host,
            host_port,
            port,
            ..
        } = binding;
        format!(
            "{host} {host_port} {}/{}",
            port.number,
            port.protocol.as_str()
        )
    };
    bindings.iter().map(place).collect()
}

#[test]
fn the_same_port_is_reserved_at_all_addresses() {
    run(|| {
        let ports = Ports::new();
        let bindings = ports
            .reserve(WEB, &[asked("", 0, 0, tcp(80))], &[], &both())
            .unwrap();
        let [first, second] = bindings.as_slice() else {
            panic!("{bindings:?}");
        };
        assert_eq!((first.host, second.host), (ALL4, ip("::")));
        assert_eq!(first.host_port, second.host_port);
        // Even if one address has a separate binding, and the port is taken at another.
        let next = first.host_port + 1;
        let _taken = TcpListener::bind(("127.0.0.2", next)).unwrap();
        let two = [
            asked("127.0.0.1", 0, 0, tcp(80)),
            asked("127.0.0.2", 0, 0, tcp(80)),
        ];
        let bindings = ports.reserve(OTHER, &two, &[], &both()).unwrap();
        let numbers: Vec<_> = bindings.iter().map(|binding| binding.host_port).collect();
        assert_eq!(numbers.len(), 2);
        assert_eq!(numbers[0], numbers[1]);
        assert!(numbers[0] > next, "{numbers:?}");
    });
}

#[test]
fn a_range_gives_the_first_port_that_is_free_at_all_addresses() {
    run(|| {
        let ports = Ports::new();
        let _taken = TcpListener::bind("[::1]:8000").unwrap();
        let range = [
            asked("", 8000, 8002, tcp(80)),
            asked("", 8000, 8002, tcp(81)),
            // Exact ports come first, wherever they are in the request.
            asked("", 8001, 8001, tcp(82)),
        ];
        let error = ports.reserve(WEB, &range, &[], &both()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to bind host port for 0.0.0.0:8000-8002:172.19.0.2:81/tcp: all ports are allocated"
        );
        // All or none.
        assert!(ports.is_empty());
        TcpListener::bind("0.0.0.0:8001").unwrap();
        let bindings = ports
            .reserve(WEB, &[range[0].clone(), range[2].clone()], &[], &both())
            .unwrap();
        assert_eq!(
            places(&bindings),
            [
                "0.0.0.0 8002 80/tcp",
                ":: 8002 80/tcp",
                "0.0.0.0 8001 82/tcp",
                ":: 8001 82/tcp"
            ]
        );
        ports.release(WEB.id);
        assert!(ports.is_empty());
        TcpListener::bind("0.0.0.0:8001").unwrap();
    });
}

#[test]
fn the_holder_of_a_port_is_named() {
    run(|| {
        let ports = Ports::new();
        let eighty = [asked("", 80, 80, tcp(80))];
        ports.reserve(WEB, &eighty, &[], &only4()).unwrap();
        let refused = |asked: &[PublishedPort]| {
            let error = ports.reserve(OTHER, asked, &[], &only4()).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            refused(&eighty),
            "Bind for 0.0.0.0:80 failed: port is already allocated (container web, 0123456789ab, has it)"
        );
        // 0.0.0.0 is any address.
        assert!(
            refused(&[asked("127.0.0.1", 80, 80, tcp(80))])
                .starts_with("Bind for 127.0.0.1:80 failed: port is already allocated")
        );
        // Another protocol, and the same container, may have the port.
        ports
            .reserve(OTHER, &[asked("", 80, 80, udp(80))], &[], &only4())
            .unwrap();
        ports.reserve(WEB, &eighty, &[], &only4()).unwrap();

        let _program = TcpListener::bind("127.0.0.1:8080").unwrap();
        let text = refused(&[asked("", 8080, 8080, tcp(80))]);
        let start =
            "failed to bind host port for 0.0.0.0:8080:172.19.0.2:80/tcp: address already in use";
        assert!(text.starts_with(start), "{text}");
        let pid = std::process::id();
        assert!(
            text.ends_with(&format!(", process {pid}, has it)")),
            "{text}"
        );
        let _program = UdpSocket::bind("0.0.0.0:8080").unwrap();
        let text = refused(&[asked("", 8080, 8080, udp(80))]);
        assert!(
            text.contains(&format!(", process {pid}, has it)")),
            "{text}"
        );
        // OTHER still has its earlier ports after the attempts.
        assert_eq!(places(&ports.bindings(OTHER.id)), ["0.0.0.0 80 80/udp"]);

        let text = refused(&[asked("192.0.2.9", 81, 81, tcp(80))]);
        assert!(text.ends_with("cannot assign requested address"), "{text}");
    });
}

#[test]
fn a_reserved_port_is_exclusive_and_accepts_no_connections() {
    run(|| {
        let ports = Ports::new();
        let all = [
            asked("", 700, 700, tcp(80)),
            asked("", 700, 700, udp(80)),
            asked(
                "",
                700,
                700,
                Port {
                    number: 80,
                    protocol: Protocol::Sctp,
                },
            ),
        ];
        let bindings = ports.reserve(WEB, &all, &[], &both()).unwrap();
        assert_eq!(bindings.len(), 6);
        // The standard library sets SO_REUSEADDR for servers, as nearly all do.
        for address in ["0.0.0.0:700", "127.0.0.1:700", "[::]:700"] {
            assert!(TcpListener::bind(address).is_err(), "{address}");
            assert!(UdpSocket::bind(address).is_err(), "{address}");
        }
        for address in ["127.0.0.1:700", "[::1]:700"] {
            let address: SocketAddr = address.parse().unwrap();
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        let sctp = [all[2].clone()];
        let error = ports.reserve(OTHER, &sctp, &[], &only4()).unwrap_err();
        assert!(
            error.to_string().contains("port is already allocated"),
            "{error}"
        );
    });
}

#[test]
fn lingering_connections_do_not_block_a_port() {
    run(|| {
        let server = TcpListener::bind("127.0.0.1:8085").unwrap();
        let client = TcpStream::connect("127.0.0.1:8085").unwrap();
        // The end that closes first lingers.
        drop(server.accept().unwrap());
        drop(server);
        drop(client);
        let ports = Ports::new();
        let eighty = [asked("", 8085, 8085, tcp(80))];
        ports.reserve(WEB, &eighty, &[], &only4()).unwrap();
    });
}

#[test]
fn automatic_ports_are_in_the_kernels_range_and_not_reserved() {
    run(|| {
        shell("echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range");
        shell("echo 40001 > /proc/sys/net/ipv4/ip_local_reserved_ports");
        let ports = Ports::new();
        let exposed = [tcp(80), tcp(81), tcp(82)];
        let bindings = ports.reserve(WEB, &[], &exposed, &only4()).unwrap();
        let mut numbers: Vec<_> = bindings.iter().map(|binding| binding.host_port).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [40000, 40002, 40003]);
        let error = ports.reserve(OTHER, &[], &exposed, &only4()).unwrap_err();
        assert!(
            error.to_string().ends_with("all ports are allocated"),
            "{error}"
        );
        // A named port may be a reserved one, and a named port is not published twice.
        let named = [asked("", 40001, 40001, tcp(80))];
        let bindings = ports
            .reserve(OTHER, &named, &exposed[..1], &only4())
            .unwrap();
        assert_eq!(places(&bindings), ["0.0.0.0 40001 80/tcp"]);
    });
}

#[test]
fn a_container_keeps_its_ports_when_its_gateway_moves() {
    run(|| {
        let ports = Ports::new();
        let any = [asked("", 0, 0, tcp(80)), asked("", 90, 99, tcp(90))];
        let before = ports.reserve(WEB, &any, &[], &only4()).unwrap();
        let after = ports.reserve(WEB, &any, &[], &both()).unwrap();
        assert_eq!(after.len(), 4);
        for binding in &before {
            assert!(after.contains(binding), "{binding:?} {after:?}");
        }
        // A failed attempt removes nothing.
        let _taken = TcpListener::bind("0.0.0.0:7000").unwrap();
        let more = [
            any[0].clone(),
            any[1].clone(),
            asked("", 7000, 7000, tcp(7)),
        ];
        ports.reserve(WEB, &more, &[], &both()).unwrap_err();
        assert_eq!(ports.bindings(WEB.id), after);
        assert!(TcpListener::bind(("0.0.0.0", after[0].host_port)).is_err());
        // No endpoint publishes ports any more.
        ports.reserve(WEB, &any, &[], &Facts::default()).unwrap();
        assert!(ports.is_empty());
    });
}

#[test]
fn ports_are_reserved_again_or_reported() {
    run(|| {
        let asked = [asked("", 80, 80, tcp(80)), asked("", 81, 81, tcp(81))];
        let bindings = {
            let ports = Ports::new();
            ports.reserve(WEB, &asked, &[], &only4()).unwrap()
        };
        // The engine was killed, and a program has taken one of the ports.
        let _program = TcpListener::bind("0.0.0.0:81").unwrap();
        let ports = Ports::new();
        let lost = ports.reserve_again(WEB, &bindings);
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].binding, bindings[1]);
        assert!(
            lost[0]
                .reason
                .to_string()
                .contains("address already in use")
        );
        assert_eq!(ports.bindings(WEB.id), bindings);
        // It still belongs to the container.
        let error = ports
            .reserve(OTHER, &asked[1..], &[], &only4())
            .unwrap_err();
        assert!(
            error.to_string().contains("port is already allocated"),
            "{error}"
        );
        ports.release(WEB.id);
        assert!(ports.is_empty());
    });
}

#[test]
fn port_0_is_refused() {
    let ports = Ports::new();
    let error = ports.reserve(WEB, &[], &[udp(0)], &only4()).unwrap_err();
    assert!(
        error.to_string().contains("invalid container port 0/udp"),
        "{error}"
    );
}

/// The plan of reservations, as text.
fn plan(asked: &[PublishedPort], facts: &Facts, ipv6: bool) -> Vec<String> {
    let (groups, direct) = groups(asked, &[], facts, ipv6);
    let mut texts: Vec<_> = groups
        .iter()
        .flat_map(|group| places(&group.bindings(1).collect::<Vec<_>>()))
        .collect();
    texts.extend(places(&direct));
    texts
}

#[test]
fn addresses_follow_from_the_families_and_the_networks_options() {
    let web = |host: &str| [asked(host, 0, 0, tcp(80))];
    let default = |address: &str| {
        let mut facts = both();
        for side in [&mut facts.ipv4, &mut facts.ipv6].into_iter().flatten() {
            side.default_binding = Some(ip(address));
        }
        facts
    };
    let (all4, all6) = ("0.0.0.0 1 80/tcp", ":: 1 80/tcp");
    for (host, facts, ipv6, expected) in [
        ("", both(), true, vec![all4, all6]),
        // A host without IPv6 has no implicit IPv6 binding.
        ("", both(), false, vec![all4]),
        ("", only4(), true, vec![all4]),
        ("0.0.0.0", both(), true, vec![all4]),
        ("::", both(), true, vec![all6]),
        ("::ffff:192.0.2.1", both(), true, vec!["192.0.2.1 1 80/tcp"]),
        ("", default("127.0.0.1"), true, vec!["127.0.0.1 1 80/tcp"]),
        ("", default("0.0.0.0"), true, vec![all4, all6]),
        ("", default("::1"), true, vec!["::1 1 80/tcp"]),
        (
            "192.0.2.1",
            default("127.0.0.1"),
            true,
            vec!["192.0.2.1 1 80/tcp"],
        ),
        ("::1", only4(), true, vec![]),
    ] {
        assert_eq!(plan(&web(host), &facts, ipv6), expected, "{host} {facts:?}");
    }
}

#[test]
fn routed_networks_take_no_port_of_the_host() {
    let mut facts = both();
    facts.ipv6.as_mut().unwrap().routed = true;
    let asked = [asked("", 8080, 8080, tcp(80))];
    let expected = ["0.0.0.0 1 80/tcp", ":: 0 80/tcp"];
    assert_eq!(plan(&asked, &facts, false), expected);
}

proptest! {
    /// For any request, each port of each address is planned once, and bindings of one port are
    /// adjacent.
    #[test]
    fn plans_hold_each_address_once(
        wanted in proptest::collection::vec((0_u8..4, 0_u16..3, 80_u16..82), 0..8),
    ) {
        let hosts = ["", "127.0.0.1", "::1", "0.0.0.0"];
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(host, first, port)| {
                let last = if *first == 2 { 9 } else { *first };
                asked(hosts[usize::from(*host)], *first, last, tcp(*port))
            })
            .collect();
        let (groups, _) = groups(&wanted, &[], &both(), true);
        let mut seen = std::collections::BTreeSet::new();
        let mut exact = true;
        for group in &groups {
            let is_exact = group.host_ports.is_some_and(|range| range.first == range.last);
            prop_assert!(exact || !is_exact, "exact ones come first");
            exact = is_exact;
            for (host, _) in &group.members {
                prop_assert!(seen.insert((group.port, group.host_ports, *host)));
            }
        }
        for asked in &wanted {
            let planned = seen.iter().any(|(port, range, _)| {
                *port == asked.port && *range == asked.host_ports
            });
            prop_assert!(planned);
        }
    }
}
