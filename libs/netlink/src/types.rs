//! What the calls take and return. Nothing here knows the netlink crates.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use keelson_model::ip::IpPrefix;

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// The routing table that is used when no rule says otherwise.
pub const TABLE_MAIN: u32 = 254;

/// A link: a network card, a bridge, one end of a veth pair, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of the link, unique in its namespace.
    pub index: u32,
    /// The name.
    pub name: String,
    /// Hardware address of Ethernet.
    pub mac: Option<Mac>,
    /// Whether it is an Ethernet link, by hardware or virtual.
    pub ethernet: bool,
    /// The kind of a virtual link: `veth`, `bridge`, `dummy`, …; `None` for a link that a hardware
    /// driver made, and for the loopback link.
    pub kind: Option<String>,
    /// Index of the bridge or bond that it belongs to.
    pub controller: Option<u32>,
    /// Index of the lower link, or of the other end of a pair.
    pub parent: Option<u32>,
    /// Its alias: a text that somebody gave it.
    pub alias: Option<String>,
    /// As a port of a bridge: whether the bridge forwards its traffic.
    pub forwards: Option<bool>,
    /// Whether it is the loopback link.
    pub loopback: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether there is a working peer at the other end.
    pub carrier: bool,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// The largest MTU that its driver accepts; `None` when the driver has no limit.
    pub max_mtu: Option<u32>,
}

/// A virtual link to create.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its kind.
    pub kind: LinkKind<'a>,
}

/// Kinds of virtual links.
#[derive(Debug, Clone, Copy)]
pub enum LinkKind<'a> {
    /// A link that drops everything.
    Dummy,
    /// A switch.
    Bridge,
    /// A pair of links: what is sent into one end comes out of the other.
    Veth {
        /// Name of the other end.
        peer: &'a str,
        /// The network namespace of the other end; `None` for that of the connection.
        namespace: Option<BorrowedFd<'a>>,
    },
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address with the length of its network's prefix.
    pub prefix: IpPrefix,
    /// Who added it (`IFA_PROTO`, Linux 5.18). The kernel uses 1 to 3 itself; 0 is nobody.
    pub protocol: u8,
    /// Seconds for which it is valid; `None` is forever.
    pub lifetime: Option<u32>,
}

/// Who made a route (`rtm_protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteProtocol {
    /// The kernel, for an address.
    Kernel,
    /// `ip route add` without a protocol.
    Boot,
    /// An administrator's configuration.
    Static,
    /// A DHCP lease.
    Dhcp,
    /// Anybody else, by the number in `/etc/iproute2/rt_protos`.
    Other(u8),
}

/// A unicast route with one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The routing table. See [`TABLE_MAIN`].
    pub table: u32,
    /// Index of the link.
    pub link: u32,
    /// Network with zero host bits; length 0 is the default route.
    pub destination: IpPrefix,
    /// The next hop; `None` when the network is on the link.
    pub gateway: Option<IpAddr>,
    /// The route with the smallest metric is preferred.
    pub metric: u32,
    /// The local address to send from.
    pub source: Option<IpAddr>,
    /// Who made it.
    pub protocol: RouteProtocol,
}

/// A rule that selects a routing table (`ip rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rule with the smallest number is tried first.
    pub priority: u32,
    /// Packets from this network; `None` is any network of the family.
    pub source: Option<IpPrefix>,
    /// Packets to this network; `None` is any network of the family.
    pub destination: Option<IpPrefix>,
    /// Packets with this firewall mark.
    pub mark: Option<u32>,
    /// The routing table to use.
    pub table: u32,
    /// Whether it is a rule for IPv6.
    pub ipv6: bool,
}

/// An entry of a link's neighbour table: which hardware address an address has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Its hardware address; `None` while it is not known.
    pub mac: Option<Mac>,
    /// Whether it was configured and stays, rather than learned.
    pub permanent: bool,
}
