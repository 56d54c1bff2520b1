//! A host with containers, and packets between them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use jiff::Timestamp;
use keelson_model::ip::IpPrefix;
use keelson_netlink::{Batches, Link, LinkId, Namespace, Request};
use tokio::runtime::Runtime;

use crate::kernel::{ContainerNamespace, Kernel, KernelError};
use crate::{Bridge, Driver, Endpoint, Network, Subnet};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Lab {
    pub(super) host: Namespace,
    pub(super) kernel: Kernel,
    pub(super) runtime: Runtime,
}

impl Lab {
    /// `None` if this machine does not allow it: the test must be skipped.
    pub(super) fn new() -> Option<Self> {
        if !keelson_testing::is_root() {
            return None;
        }
        let runtime = Runtime::new().unwrap();
        let host = Namespace::create().unwrap();
        let kernel = host.run(|| Kernel::connect("test")).unwrap().unwrap();
        Some(Self {
            host,
            kernel,
            runtime,
        })
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Attaches a container to networks.
    pub(super) fn attach(&self, container: &Container, connections: &[(&Network, &Endpoint)]) {
        self.try_attach(container, connections).unwrap();
    }

    pub(super) fn try_attach(
        &self,
        container: &Container,
        connections: &[(&Network, &Endpoint)],
    ) -> Result<(), KernelError> {
        let attached = self.kernel.attach(&container.fd, connections, || ());
        self.block_on(attached).map(drop)
    }

    pub(super) fn run(&self, requests: &[Request]) {
        run(&self.host, requests);
    }

    pub(super) fn link(&self, name: &str) -> Option<Link> {
        link(&self.host, name)
    }

    /// Waits until a link is gone.
    pub(super) fn wait_gone(&self, name: &str) {
        let end = std::time::Instant::now() + PATIENCE;
        while let Some(link) = self.link(name) {
            assert!(std::time::Instant::now() < end, "{link:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(super) struct Container {
    pub(super) namespace: Namespace,
    pub(super) fd: ContainerNamespace,
}

impl Container {
    pub(super) fn new() -> Self {
        let namespace = Namespace::create().unwrap();
        let fd = namespace.as_fd().try_clone_to_owned().unwrap().into();
        Self { namespace, fd }
    }

    pub(super) fn link(&self, name: &str) -> Option<Link> {
        link(&self.namespace, name)
    }
}

pub(super) fn batches<T: Send>(
    namespace: &Namespace,
    function: impl FnOnce(&mut Batches) -> T + Send,
) -> T {
    let run = || function(&mut Batches::open().unwrap());
    namespace.run(run).unwrap()
}

pub(super) fn link(namespace: &Namespace, name: &str) -> Option<Link> {
    batches(namespace, |batches| batches.find_link(name).unwrap())
}

pub(super) fn run(namespace: &Namespace, requests: &[Request]) {
    batches(namespace, |batches| batches.run(requests, None).unwrap());
}

pub(super) fn name(text: &str) -> LinkId {
    LinkId::Name(text.to_owned())
}

/// The value of a parameter below /proc/sys/net.
pub(super) fn setting(namespace: &Namespace, path: &str) -> String {
    let path = format!("/proc/sys/net/{path}");
    let read = || std::fs::read_to_string(&path);
    let text = namespace.run(read).unwrap();
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .to_owned()
}

pub(super) fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

/// A network; `id` is one hexadecimal digit.
pub(super) fn network(id: char, driver: Driver, subnets: &[(&str, Option<&str>)]) -> Network {
    let subnets: Vec<_> = subnets
        .iter()
        .map(|(subnet, gateway)| Subnet {
            prefix: prefix(subnet),
            range: None,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            auxiliary: Default::default(),
        })
        .collect();
    let has = |ipv6| {
        let mut subnets = subnets.iter();
        subnets.any(|subnet: &Subnet| subnet.prefix.address.is_ipv6() == ipv6)
    };
    Network {
        id: id.to_string().repeat(64),
        name: format!("net-{id}"),
        created: Timestamp::UNIX_EPOCH,
        driver,
        internal: false,
        attachable: false,
        ipv4: has(false),
        ipv6: has(true),
        subnets,
        asked: Default::default(),
        options: Default::default(),
        labels: Default::default(),
        predefined: false,
        unreadable: None,
    }
}

pub(super) fn bridge(id: char, subnets: &[(&str, Option<&str>)]) -> Network {
    let bridge = Bridge::new(format!("br-{id}"));
    network(id, Driver::Bridge(bridge), subnets)
}

/// 192.0.2.0/24 with its gateway, and fd00:2::/64 with its own.
pub(super) fn dual(id: char) -> Network {
    let subnets = [
        ("192.0.2.0/24", Some("192.0.2.1")),
        ("fd00:2::/64", Some("fd00:2::1")),
    ];
    bridge(id, &subnets)
}

/// An endpoint whose default routes lead through its network if that has a gateway. `number` is the
/// last part of its identifier, names and addresses.
pub(super) fn endpoint(network: &Network, number: u8, addresses: &[&str]) -> Endpoint {
    let addresses: Vec<IpPrefix> = addresses.iter().map(|text| prefix(text)).collect();
    let of = |ipv6| {
        let mut addresses = addresses.iter().copied();
        addresses.find(|prefix| prefix.address.is_ipv6() == ipv6)
    };
    let gateway = |ipv6| network.subnets_of(ipv6).find_map(|subnet| subnet.gateway);
    Endpoint {
        id: format!("{}{number:063x}", &network.id[..1]),
        network: network.id.clone(),
        asked: Default::default(),
        ipv4: of(false),
        ipv6: of(true),
        gateway_ipv4: gateway(false).and_then(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(gateway),
            IpAddr::V6(_) => None,
        }),
        gateway_ipv6: gateway(true).and_then(|gateway| match gateway {
            IpAddr::V6(gateway) => Some(gateway),
            IpAddr::V4(_) => None,
        }),
        mac: match network.driver {
            Driver::Ipvlan(_) => None,
            _ => Some([2, 0, 0, 0, network.id.as_bytes()[0], number]),
        },
        interface: "eth0".to_owned(),
        host_link: match network.driver {
            Driver::Bridge(_) => format!("veth{}{number}", &network.id[..1]),
            _ => String::new(),
        },
        default_ipv4: true,
        default_ipv6: true,
    }
}

/// Sends a datagram to a socket at an address of another namespace, and waits for the answer.
pub(super) fn try_udp(from: &Namespace, to: &Namespace, address: &str) -> io::Result<SocketAddr> {
    let address: IpAddr = address.parse().unwrap();
    let unspecified = match address {
        IpAddr::V4(_) => "0.0.0.0:0",
        IpAddr::V6(_) => "[::]:0",
    };
    let server = to.run(|| UdpSocket::bind((address, 0))).unwrap()?;
    let client = from.run(|| UdpSocket::bind(unspecified)).unwrap()?;
    let there = server.local_addr()?;
    server.set_read_timeout(Some(Duration::from_secs(1)))?;
    client.send_to(b"question", there)?;
    let mut buffer = [0; 16];
    let (length, back) = server.recv_from(&mut buffer)?;
    assert_eq!(&buffer[..length], b"question");
    server.send_to(b"answer", back)?;
    client.set_read_timeout(Some(PATIENCE))?;
    let (length, _) = client.recv_from(&mut buffer)?;
    assert_eq!(&buffer[..length], b"answer");
    Ok(back)
}

/// Sends datagrams until one is answered.
pub(super) fn udp(from: &Namespace, to: &Namespace, address: &str) -> SocketAddr {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match try_udp(from, to, address) {
            Ok(back) => return back,
            Err(error) if std::time::Instant::now() > end => panic!("{address}: {error}"),
            Err(error) if is_lost(&error) => {}
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Connects to a listener at an address of another namespace, and transfers data.
pub(super) fn tcp(from: &Namespace, to: &Namespace, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let there = listener.local_addr().unwrap();
    let mut client = from
        .run(|| TcpStream::connect_timeout(&there, PATIENCE))
        .unwrap()
        .unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"text").unwrap();
    let mut buffer = [0; 4];
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"text");
}
