//! The kernel's state and the desired state, in types of our own. Nothing here depends on netlink.

use std::net::IpAddr;

use keelson_config::IpPrefix;

use crate::dhcp::arp::Mac;

/// The parts of the kernel's network state that netcfg uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// All links.
    pub links: Vec<Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// Unicast routes of the main table with netcfg's protocols.
    pub routes: Vec<Route>,
}

/// A link of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Kernel's number of the link.
    pub index: u32,
    /// Kernel's name.
    pub name: String,
    /// Hardware address of Ethernet.
    pub mac: Option<Mac>,
    /// Whether it is an Ethernet link, real or virtual.
    pub ethernet: bool,
    /// Whether a driver of hardware made it (a virtual machine's counts), not a user.
    pub physical: bool,
    /// Whether it is the loopback link.
    pub loopback: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether the other end is connected.
    pub carrier: bool,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// The largest MTU of its driver, if known.
    pub max_mtu: Option<u32>,
    /// `net.ipv6.conf.<link>.accept_ra`; `None` without IPv6.
    pub accept_ra: Option<u8>,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub prefix: IpPrefix,
    /// Whether netcfg added it.
    pub ours: bool,
    /// How many seconds it is valid. `None` is forever.
    pub lifetime: Option<u32>,
}

/// Who made a route (`rtm_protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration.
    Static,
    /// A DHCP lease.
    Dhcp,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Index of the link.
    pub link: u32,
    /// Network with zero host bits; length 0 is the default route.
    pub destination: IpPrefix,
    /// Gateway. `None` if the network is on the link.
    pub gateway: Option<IpAddr>,
    /// Smaller is preferred.
    pub metric: u32,
    /// Address of this machine to send from.
    pub source: Option<IpAddr>,
    /// Who made it.
    pub origin: Origin,
}

/// The desired state of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The managed links. Other links are not changed.
    pub links: Vec<DesiredLink>,
}

/// The desired state of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredLink {
    /// Index of the link.
    pub index: u32,
    /// Maximum transmission unit. `None` does not change it.
    pub mtu: Option<u32>,
    /// Whether the kernel configures IPv6 by router advertisements.
    pub accept_ra: bool,
    /// Whether a DHCPv4 client runs.
    pub dhcp4: bool,
    /// Addresses, with the seconds that they are valid (`None`: forever).
    pub addresses: Vec<(IpPrefix, Option<u32>)>,
    /// Routes.
    pub routes: Vec<Route>,
}
