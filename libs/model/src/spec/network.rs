//! The networks that a container is connected to, and its published ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Port, is_default};

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// A connection to a network, as requested. Addresses that were allocated only for a run are not in
/// it: the next run may get others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSpec {
    /// The network's name or identifier. A name also refers to a network that was removed and made
    /// again under it.
    pub network: String,
    /// Other names of the container in the network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Names for other containers that only this one knows (links).
    #[serde(default, skip_serializing_if = "is_default")]
    pub links: Vec<ContainerLink>,
    /// Its IPv4 address; `None`: any free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address; `None`: any free one, if the network has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// Additional link-local addresses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub link_local: Vec<IpAddr>,
    /// Its hardware address; `None`: a new one for each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The default route goes through the network with the highest number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway_priority: i64,
    /// The interface's name in the container; `None`: the network's prefix and the first free number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Kernel parameters of the interface, by their names with dots, with `IFNAME` for the
    /// interface's name: `net.ipv4.conf.IFNAME.log_martians`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// Further options for the network's driver, which no present driver uses. They are stored for
    /// clients.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// A name for another container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerLink {
    /// The other container, by identifier or name.
    pub container: String,
    /// The name.
    pub alias: String,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The container's port.
    pub port: Port,
    /// The host's address; `None`: all of both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The range of host ports from which one is chosen. `None`: any free port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ports: Option<PortRange>,
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// Not 0.
    pub first: u16,
    /// Not less than `first`.
    pub last: u16,
}
