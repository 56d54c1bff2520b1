//! The settings with which networks are opened.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use keelson_model::ip::IpPrefix;
use keelson_model::mark::PacketMark;
use keelson_store::Era;

use crate::ipam::AddressPool;

/// The settings with which networks are opened.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// The directory of the networks' documents.
    pub base: PathBuf,
    /// The directory of running containers' records. A reboot empties it.
    pub run: PathBuf,
    /// Identifies the current boot of the kernel.
    pub boot: String,
    /// Whether documents are written in the format of the previous release.
    pub era: Era,
    /// The engine's identifier, which is the same after a restart. The identifiers of the
    /// predefined networks, and the IPv6 subnets, are derived from it.
    pub engine: String,
    /// The pools of automatic subnets. A family without any gets Docker's.
    pub pools: Vec<AddressPool>,
    /// Default options of new networks, by the driver's name.
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
    /// The default bridge network. `None`: there is none, and containers without a named network
    /// have no network.
    pub default_bridge: Option<DefaultBridge>,
    /// What passes the packet filter.
    pub filter: FilterOptions,
    /// With what names are served.
    pub resolver: ResolverOptions,
}

/// What passes the packet filter beyond what networks and published ports say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterOptions {
    /// Whether published ports are reached at the containers' own addresses, too, by every link of the
    /// host.
    pub direct_routing: bool,
    /// Packets that somebody else has marked so are forwarded to and from containers.
    pub accept_mark: Option<PacketMark>,
}

/// With what the names of containers are served.
#[derive(Debug, Clone)]
pub struct ResolverOptions {
    /// The program `keelson-resolver`.
    pub program: PathBuf,
    /// The directory of its socket and its log. A reboot empties it.
    pub run: PathBuf,
    /// The cgroup of processes that are not stopped together with this process.
    pub cgroup: Option<PathBuf>,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
}

/// The network `bridge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultBridge {
    /// The name of its link.
    pub link: String,
    /// The bridge's address with the prefix length of its subnet; `None`: one from the pools.
    pub address: Option<IpPrefix>,
    /// The same for IPv6.
    pub address_ipv6: Option<IpPrefix>,
    /// The part of its subnet that containers get addresses from; `None`: all of it. Only with an address.
    pub range: Option<IpPrefix>,
    /// The same for IPv6.
    pub range_ipv6: Option<IpPrefix>,
    /// Whether it has IPv6, also when its address is not said.
    pub ipv6: bool,
    /// Whether its containers reach each other.
    pub inter_container: bool,
    /// Whether what leaves it gets the host's address.
    pub masquerade: bool,
    /// The maximum transmission unit of its links, in bytes; `None`: the kernel's default.
    pub mtu: Option<u32>,
    /// The host's address for published ports that name none; `None`: all addresses.
    pub publish_address: Option<IpAddr>,
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            link: "docker0".to_owned(),
            address: None,
            address_ipv6: None,
            range: None,
            range_ipv6: None,
            ipv6: false,
            inter_container: true,
            masquerade: true,
            mtu: None,
            publish_address: None,
        }
    }
}

#[cfg(test)]
impl NetworkOptions {
    /// The settings of a test, with all files in a directory.
    pub(crate) fn below(base: &std::path::Path) -> Self {
        Self {
            base: base.join("networks"),
            run: base.join("run"),
            boot: "boot".to_owned(),
            era: Era::Blessed,
            engine: "engine".to_owned(),
            pools: Vec::new(),
            default_options: BTreeMap::new(),
            default_bridge: Some(DefaultBridge::default()),
            filter: FilterOptions::default(),
            resolver: ResolverOptions::none(base),
        }
    }
}

#[cfg(test)]
impl ResolverOptions {
    /// The settings of a resolver that does not exist.
    pub(crate) fn none(run: &std::path::Path) -> Self {
        Self {
            program: "/nonexistent/keelson-resolver".into(),
            run: run.join("resolver"),
            cgroup: None,
            resolv_conf: run.join("resolv.conf"),
        }
    }
}
