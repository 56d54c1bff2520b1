//! What the configuration says about a link of the host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One entry of `[[network.link]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Kernel name: `eth0`. With `mac` or `driver`, a name that only this file uses.
    pub name: String,
    /// The link with this hardware address: `02:00:00:00:00:01`.
    pub mac: Option<String>,
    /// The link with this driver.
    pub driver: Option<String>,
    /// Ask for an IPv4 address by DHCP.
    #[serde(default)]
    pub dhcp4: bool,
    /// Ask for an IPv6 address by DHCP.
    #[serde(default)]
    pub dhcp6: bool,
    /// Whether router advertisements are accepted.
    pub accept_ra: Option<bool>,
    /// Addresses with prefix length: `192.0.2.10/24`, `2001:db8::10/64`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Default gateways.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Maximum transmission unit in bytes, 576 to 65535.
    pub mtu: Option<u32>,
    /// Further routes.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// The link is a bond.
    pub bond: Option<BondConfig>,
    /// The link is a VLAN.
    pub vlan: Option<VlanConfig>,
    /// The link is a bridge.
    pub bridge: Option<BridgeConfig>,
}

/// One entry of `routes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Destination with prefix length.
    pub to: String,
    /// Router.
    pub via: Option<IpAddr>,
    /// Metric.
    pub metric: Option<u32>,
}

/// `bond`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BondConfig {
    /// Members, by the name of their link.
    pub members: Vec<String>,
    /// `802.3ad`, `active-backup`, ….
    pub mode: Option<String>,
    /// Milliseconds between two looks at the carrier.
    pub miimon: Option<u32>,
    /// Other parameters, by the kernel's names.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// `vlan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlanConfig {
    /// Identifier, 0 to 4094.
    pub id: u16,
    /// The link below.
    pub parent: String,
}

/// `bridge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Members, by the name of their link.
    pub members: Vec<String>,
    /// Spanning tree protocol.
    pub stp: Option<bool>,
}
