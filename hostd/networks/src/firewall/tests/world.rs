//! A host with bridges, containers on them and a neighbour on the wire, in network namespaces of the
//! tests' own.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keelson_model::ip::IpPrefix;
use keelson_model::spec::{ConnectionSpec, Port, Protocol, PublishedPort};
use keelson_netlink::Namespace;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with,
};

use crate::firewall::*;
use crate::settings::FilterOptions;
use crate::types::*;

/// How long to wait for a packet that must come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before concluding that nothing comes.
const SILENCE: Duration = Duration::from_millis(500);

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

/// A bridge network with the subnets 172.30.N.0/24 and 2001:db8:30:N::/64. Its gateway has the
/// number 1.
pub(super) fn network(number: u8) -> Network {
    Network {
        id: format!("{number:064}"),
        name: format!("net{number}"),
        created: Timestamp::UNIX_EPOCH,
        driver: Driver::Bridge(Bridge::new(format!("br{number}"))),
        internal: false,
        attachable: false,
        ipv4: true,
        ipv6: true,
        subnets: Vec::new(),
        asked: Addressing::default(),
        options: Default::default(),
        labels: Default::default(),
        predefined: false,
        unreadable: None,
    }
}

/// The same, with other options.
pub(super) fn with(number: u8, change: impl FnOnce(&mut Bridge)) -> Network {
    let mut network = network(number);
    if let Driver::Bridge(bridge) = &mut network.driver {
        change(bridge);
    }
    network
}

/// The endpoint of a container in a network of [`network`].
pub(super) fn endpoint(network: u8, container: u8) -> Endpoint {
    Endpoint {
        id: String::new(),
        network: format!("{network:064}"),
        asked: ConnectionSpec::default(),
        ipv4: Some(prefix(&format!("172.30.{network}.{container}/24"))),
        ipv6: Some(prefix(&format!("2001:db8:30:{network}::{container}/64"))),
        gateway_ipv4: None,
        gateway_ipv6: None,
        mac: None,
        interface: "eth0".to_owned(),
        host_link: String::new(),
        default_ipv4: true,
        default_ipv6: true,
    }
}

/// `-p host:host_port:port/protocol`.
pub(super) fn binding(host: &str, host_port: u16, port: u16, protocol: Protocol) -> Binding {
    let port = Port {
        number: port,
        protocol,
    };
    Binding {
        asked: PublishedPort {
            port,
            host: None,
            host_ports: None,
        },
        port,
        host: ip(host),
        host_port,
    }
}

/// `-p host_port:port` for TCP and UDP, at all addresses.
pub(super) fn everywhere(host_port: u16, port: u16) -> Vec<Binding> {
    let of = |host, protocol| binding(host, host_port, port, protocol);
    vec![
        of("0.0.0.0", Protocol::Tcp),
        of("::", Protocol::Tcp),
        of("0.0.0.0", Protocol::Udp),
        of("::", Protocol::Udp),
    ]
}

/// A host, 192.0.2.1 and 2001:db8:2::1, and its neighbour, 192.0.2.9 and 2001:db8:2::9, whose route
/// to the containers' networks leads through the host.
pub(super) struct World {
    pub(super) host: Namespace,
    pub(super) neighbour: Namespace,
    pub(super) firewall: Firewall,
}

pub(super) fn shell(namespace: &Namespace, commands: &str) {
    let run = || Command::new("sh").args(["-ec", commands]).output();
    let output = namespace.run(run).unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{error}");
}

fn path(namespace: &Namespace) -> String {
    let file = namespace.as_fd().as_raw_fd();
    format!("/proc/{}/fd/{file}", std::process::id())
}

fn new_namespace() -> Namespace {
    let namespace = Namespace::create().unwrap();
    shell(&namespace, "ip link set lo up");
    namespace
}

impl World {
    /// `None` if the machine does not allow it.
    pub(super) fn new(networks: &[u8], transit: Transit) -> Option<Self> {
        Self::with_options(networks, transit, FilterOptions::default())
    }

    pub(super) fn with_options(
        networks: &[u8],
        transit: Transit,
        options: FilterOptions,
    ) -> Option<Self> {
        if !keelson_testing::is_root() {
            return None;
        }
        let (host, neighbour) = (new_namespace(), new_namespace());
        let commands = format!(
            "ip link add eth0 type veth peer name eth0 netns {}
            ip addr add 192.0.2.1/24 dev eth0
            ip addr add 2001:db8:2::1/64 dev eth0 nodad
            ip link set eth0 up
            echo 1 > /proc/sys/net/ipv4/ip_forward
            echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            path(&neighbour)
        );
        shell(&host, &commands);
        shell(
            &neighbour,
            "ip addr add 192.0.2.9/24 dev eth0
            ip addr add 2001:db8:2::9/64 dev eth0 nodad
            ip link set eth0 up
            ip route add 172.30.0.0/16 via 192.0.2.1
            ip route add 2001:db8:30::/48 via 2001:db8:2::1",
        );
        for number in networks {
            let commands = format!(
                "ip link add br{number} type bridge
                ip addr add 172.30.{number}.1/24 dev br{number}
                ip addr add 2001:db8:30:{number}::1/64 dev br{number} nodad
                echo 1 > /proc/sys/net/ipv4/conf/br{number}/route_localnet
                ip link set br{number} up"
            );
            shell(&host, &commands);
        }
        let firewall = host
            .run(|| Firewall::open(transit, options))
            .unwrap()
            .unwrap();
        let world = Self {
            host,
            neighbour,
            firewall,
        };
        world.bridges_ask_filters(false);
        Some(world)
    }

    /// Switches filtering of bridged packets in the host's namespace, if the kernel has
    /// `br_netfilter`.
    pub(super) fn bridges_ask_filters(&self, on: bool) -> bool {
        let value = if on { "1" } else { "0" };
        let write = || {
            ["iptables", "ip6tables"].iter().all(|name| {
                let path = format!("/proc/sys/net/bridge/bridge-nf-call-{name}");
                std::fs::write(path, value).is_ok()
            })
        };
        self.host.run(write).unwrap()
    }

    /// A container with port 80 and 81 open, TCP and UDP.
    pub(super) fn container(&self, network: u8, number: u8) -> Namespace {
        let container = new_namespace();
        let commands = format!(
            "ip link add v{network}x{number} type veth peer name eth0 netns {}
            ip link set v{network}x{number} master br{network} up",
            path(&container)
        );
        shell(&self.host, &commands);
        let commands = format!(
            "ip addr add 172.30.{network}.{number}/24 dev eth0
            ip addr add 2001:db8:30:{network}::{number}/64 dev eth0 nodad
            ip link set eth0 up
            ip route add default via 172.30.{network}.1
            ip route add default via 2001:db8:30:{network}::1"
        );
        shell(&container, &commands);
        for port in [80, 81] {
            serve(&container, port);
        }
        container
    }

    /// A machine with these addresses behind a bridge of the host that is not ours.
    pub(super) fn behind(&self, bridge: &str, ipv4: &str, ipv6: &str) -> Namespace {
        let machine = new_namespace();
        let commands = format!(
            "ip link add {bridge}x type veth peer name eth0 netns {}
            ip link set {bridge}x master {bridge} up",
            path(&machine)
        );
        shell(&self.host, &commands);
        let commands = format!(
            "ip addr add {ipv4} dev eth0
            ip addr add {ipv6} dev eth0 nodad
            ip link set eth0 up"
        );
        shell(&machine, &commands);
        machine
    }

    pub(super) fn restore(&self, everything: Elements) {
        let restore = || self.firewall.restore(everything);
        self.host.run(restore).unwrap().unwrap();
        self.settle();
    }

    pub(super) fn apply(&self, add: &Elements, remove: &Elements) {
        let apply = || self.firewall.apply(add, remove);
        self.host.run(apply).unwrap().unwrap();
        self.settle();
    }

    /// Waits until old UDP connections are forgotten.
    fn settle(&self) {
        let begun = Instant::now();
        while !self.firewall.sweeper.is_idle() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Elements of networks, and of endpoints in them.
pub(super) fn elements(
    networks: &[&Network],
    endpoints: &[(&Network, Endpoint, &[Binding])],
) -> Elements {
    let mut all = Elements::default();
    for network in networks {
        all.merge(elements_of_network(network));
    }
    for (network, endpoint, bindings) in endpoints {
        all.merge(elements_of_endpoint(network, endpoint, bindings, false));
    }
    all
}

/// Answers each client, by TCP and UDP, with the client's own address.
pub(super) fn serve(namespace: &Namespace, port: u16) {
    let (tcp, udp) = namespace
        .run(|| {
            let tcp = TcpListener::bind(("::", port)).unwrap();
            let udp = UdpSocket::bind(("::", port)).unwrap();
            (tcp, udp)
        })
        .unwrap();
    let text = |address: SocketAddr| address.ip().to_canonical().to_string();
    // The threads end with the test's process.
    std::thread::spawn(move || {
        for mut client in tcp.incoming().flatten() {
            if let Ok(address) = client.peer_addr() {
                let _ = client.write_all(text(address).as_bytes());
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, address)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(text(address).as_bytes(), address);
        }
    });
}

fn try_tcp(from: &Namespace, to: &str, patience: Duration) -> Result<String, ErrorKind> {
    let to: SocketAddr = to.parse().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let result: std::io::Result<String> = from.run(connect).unwrap();
    result.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut,
        kind => kind,
    })
}

/// A UDP socket that sends to one address.
pub(super) fn udp_client(from: &Namespace, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let open = || {
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(to).unwrap();
        socket
    };
    from.run(open).unwrap()
}

/// Returns the answer to a datagram.
pub(super) fn ask(client: &UdpSocket, patience: Duration) -> Result<String, ErrorKind> {
    client.set_read_timeout(Some(patience)).unwrap();
    let exchange = || {
        client.send(b"?")?;
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let result: std::io::Result<String> = exchange();
    result.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut,
        kind => kind,
    })
}

/// Returns the client's address as the server sees it, by TCP and UDP.
#[track_caller]
pub(super) fn reaches(from: &Namespace, to: &str, seen: &str) {
    assert_eq!(try_tcp(from, to, PATIENCE).as_deref(), Ok(seen), "{to}");
    let client = udp_client(from, to);
    assert_eq!(ask(&client, PATIENCE).as_deref(), Ok(seen), "{to}");
}

/// The same by TCP only.
#[track_caller]
pub(super) fn reaches_by_tcp(from: &Namespace, to: &str, seen: &str) {
    assert_eq!(try_tcp(from, to, PATIENCE).as_deref(), Ok(seen), "{to}");
}

/// Checks that there is no answer of any kind, neither by TCP nor by UDP.
#[track_caller]
pub(super) fn is_cut_off(from: &Namespace, to: &str) {
    let client = udp_client(from, to);
    let (tcp, udp) = std::thread::scope(|scope| {
        let tcp = scope.spawn(|| try_tcp(from, to, SILENCE));
        let udp = ask(&client, SILENCE);
        (tcp.join().unwrap(), udp)
    });
    assert_eq!(tcp, Err(ErrorKind::TimedOut), "{to}");
    assert_eq!(udp, Err(ErrorKind::TimedOut), "{to}");
}

/// Checks that connections are refused at once, by TCP and UDP.
#[track_caller]
pub(super) fn is_refused(from: &Namespace, to: &str) {
    let refused = Err(ErrorKind::ConnectionRefused);
    assert_eq!(try_tcp(from, to, PATIENCE), refused, "{to}");
    let client = udp_client(from, to);
    assert_eq!(ask(&client, PATIENCE), refused, "{to}");
}

/// Whether an echo is answered (ICMP).
pub(super) fn echoes(from: &Namespace, to: &str) -> bool {
    let to = SocketAddr::new(ip(to), 0);
    let (family, protocol, request, reply) = match to.is_ipv4() {
        true => (AddressFamily::INET, ipproto::ICMP, 8, 0),
        false => (AddressFamily::INET6, ipproto::ICMPV6, 128, 129),
    };
    // Add a checksum; the kernel does that for IPv6 only.
    let message = [request, 0, !request, 0xff, 0, 0, 0, 0];
    let exchange = || {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE))?;
        sendto(&socket, &message, SendFlags::empty(), &to)?;
        let mut buffer = [0; 128];
        let begun = Instant::now();
        while begun.elapsed() < SILENCE {
            let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            // An IPv4 socket also returns the IP header.
            let start = if to.is_ipv4() { 20 } else { 0 };
            if length > start && buffer[start] == reply {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let result: Result<bool, Errno> = from.run(exchange).unwrap();
    match result {
        Ok(answered) => answered,
        Err(Errno::AGAIN) => false,
        Err(error) => panic!("{error}"),
    }
}

/// The output of `nft`; `None` without the program.
pub(super) fn listed(namespace: &Namespace) -> Option<String> {
    let list = || Command::new("nft").args(["list", "ruleset"]).output();
    match namespace.run(list).unwrap() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            keelson_testing::skip("nft", error);
            None
        }
    }
}
