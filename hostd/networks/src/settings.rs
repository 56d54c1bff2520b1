//! With what networks are opened.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keelson_model::ip::IpPrefix;
use keelson_store::Era;

use crate::ipam::AddressPool;

/// With what networks are opened.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Where networks are kept.
    pub base: PathBuf,
    /// Where it is kept what running containers have; gone with the boot.
    pub run: PathBuf,
    /// Identifies the running boot of the kernel.
    pub boot: String,
    /// Whether documents are written as the release before wrote them.
    pub era: Era,
    /// The engine's identifier, which is the same after a restart. The identifiers of the networks that
    /// every engine has, and its IPv6 addresses, follow from it.
    pub engine: String,
    /// From where subnets are taken that nobody asked for. A family without any gets Docker's.
    pub pools: Vec<AddressPool>,
    /// Options that new networks of a driver get when they are not given, by the driver's name.
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
    /// The network of containers that name none; `None`: there is no such network, and these
    /// containers have none.
    pub default_bridge: Option<DefaultBridge>,
    /// With what names are served.
    pub resolver: ResolverOptions,
}

/// With what the names of containers are served.
#[derive(Debug, Clone)]
pub struct ResolverOptions {
    /// The program `keelson-resolver`.
    pub program: PathBuf,
    /// The directory of its socket and its log, gone with the boot.
    pub run: PathBuf,
    /// A cgroup of those that are not stopped together with this process.
    pub cgroup: Option<PathBuf>,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
}

/// The network `bridge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultBridge {
    /// The name of its link.
    pub link: String,
    /// The bridge's address and the length of its subnet's prefix; `None`: one from the pools.
    pub address: Option<IpPrefix>,
    /// The same for IPv6.
    pub address_ipv6: Option<IpPrefix>,
    /// Whether it has IPv6, also when its address is not said.
    pub ipv6: bool,
    /// Options of the driver, by Docker's names.
    pub options: BTreeMap<String, String>,
}

impl Default for DefaultBridge {
    fn default() -> Self {
        Self {
            link: "docker0".to_owned(),
            address: None,
            address_ipv6: None,
            ipv6: false,
            options: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
impl ResolverOptions {
    /// Of a resolver that is not there.
    pub(crate) fn none(run: &std::path::Path) -> Self {
        Self {
            program: "/nonexistent/keelson-resolver".into(),
            run: run.join("resolver"),
            cgroup: None,
            resolv_conf: run.join("resolv.conf"),
        }
    }
}
