//! `status.json`: the network's state for hostd and for operators.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::dhcp::machine::StateName;

/// Version of the file's format.
pub const VERSION: u32 = 1;

/// The content of `/run/keelson/netcfg/status.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// [`VERSION`].
    pub version: u32,
    /// All links in the order of their numbers.
    pub links: Vec<LinkStatus>,
    /// Name servers in use.
    pub nameservers: Vec<IpAddr>,
    /// Search domains in use.
    pub search: Vec<String>,
    /// Time servers that the configuration or the network names.
    pub ntp_servers: Vec<String>,
    /// Problems, for an operator. Empty if there are none.
    pub problems: Vec<String>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Kernel's name.
    pub name: String,
    /// Kernel's number.
    pub index: u32,
    /// Hardware address: `02:00:00:00:00:01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether netcfg manages it.
    pub managed: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether the other end is connected.
    pub carrier: bool,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Gateways of the default routes that netcfg made.
    pub gateways: Vec<IpAddr>,
    /// The DHCPv4 client, if one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp4: Option<DhcpStatus>,
}

/// A DHCPv4 client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpStatus {
    /// State of the client.
    pub state: StateName,
    /// The lease in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
    /// Why the client has no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Address with prefix length.
    pub address: String,
    /// Identifier of the server.
    pub server: IpAddr,
    /// When the lease began, in seconds of CLOCK_BOOTTIME.
    pub granted: u64,
    /// Duration in seconds. Absent if it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Host name that the server assigns to this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}
