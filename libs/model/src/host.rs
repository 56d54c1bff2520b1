//! The host configuration: one TOML schema for every layer (`host.toml`). Crate `keelson-config`
//! reads and merges it, and reports errors.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::users::UserRange;

mod link;
mod logs;
mod machine;
mod service;

pub use link::{BondConfig, BridgeConfig, LinkConfig, RouteConfig, VlanConfig};
pub use logs::{ForwardConfig, LogTarget, LogTargetError, LogTransport, LogsConfig};
pub use machine::{
    CommandConfig, FileConfig, ModulesConfig, MountConfig, StorageConfig, SwapConfig, UserConfig,
    WatchdogConfig,
};
pub use service::{
    ServiceConfig, ServiceHealth, ServiceLog, ServiceMount, ServiceReload, ServiceResources,
    ServiceRestart,
};

/// The configuration of a machine. Every member is optional in a file; a later layer replaces
/// the members that it names, table by table, and whole lists.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MachineConfig {
    /// The machine's name: letters, digits and hyphens, at most 63 (RFC 1123).
    pub hostname: Option<String>,
    /// The machine's full name, whose first label is the host name.
    pub fqdn: Option<String>,
    /// Network.
    pub network: NetworkConfig,
    /// The addresses that the APIs listen on.
    pub api: ApiConfig,
    /// Time synchronisation.
    pub time: TimeConfig,
    /// Defaults of the container engine.
    pub engine: EngineConfig,
    /// Connections to registries.
    pub registries: RegistriesConfig,
    /// Storage of images.
    pub images: ImagesConfig,
    /// `[services.NAME]`: containers that belong to the machine.
    pub services: BTreeMap<String, ServiceConfig>,
    /// The machine's logs.
    pub logs: LogsConfig,
    /// `[[user]]`: people who may log in.
    pub user: Vec<UserConfig>,
    /// `[[file]]`: files that each boot writes.
    pub file: Vec<FileConfig>,
    /// `[[command]]`: commands that run when the machine has started.
    pub command: Vec<CommandConfig>,
    /// `[sysctl]`: parameters of the kernel by their names in sysctl(8): `"vm.swappiness" = 10`.
    pub sysctl: BTreeMap<String, SysctlValue>,
    /// Kernel modules.
    pub modules: ModulesConfig,
    /// Swap space.
    pub swap: SwapConfig,
    /// The hardware watchdog.
    pub watchdog: WatchdogConfig,
    /// Further file systems.
    pub storage: StorageConfig,
}

impl MachineConfig {
    /// The machine's short name, from whichever of `hostname` and `fqdn` is there.
    #[must_use]
    pub fn short_name(&self) -> Option<&str> {
        let full = self.fqdn.as_deref().and_then(|name| name.split('.').next());
        self.hostname.as_deref().or(full)
    }
}

/// A value of `[sysctl]`: a number, or text as it is written to the kernel's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or text")]
pub enum SysctlValue {
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
}

impl std::fmt::Display for SysctlValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// `[[network.link]]`: links by name. A machine without any uses DHCPv4 on its first Ethernet
    /// link.
    pub link: Vec<LinkConfig>,
    /// Name servers that are used instead of those learned by DHCP.
    pub nameservers: Vec<IpAddr>,
    /// Search domains that are used instead of those learned by DHCP.
    pub search: Vec<String>,
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Addresses on which the Docker Engine API and the host API listen with mutual TLS.
    pub listen: Vec<SocketAddr>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 2376))],
        }
    }
}

/// `[time]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeConfig {
    /// NTP servers; without any, those that DHCP names, else the distribution's pool.
    pub servers: Vec<String>,
}

/// `[registries]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// Mirrors of Docker Hub, asked in this order before it: `https://mirror.example`.
    pub mirrors: Vec<String>,
    /// Registries that may be used without TLS, and whose certificates are not checked: `host`,
    /// `host:port` or a prefix such as `10.0.0.0/8`.
    pub insecure: Vec<String>,
    /// File with credentials in the form of Docker's `config.json`, used where a client sends none;
    /// `/etc/keelson/registry-auth.json` when absent.
    pub auth_file: Option<String>,
}

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Keep the compressed blob of every layer that is pulled or loaded beside the layer, so that
    /// a save or a push returns it with the same digest; true.
    pub keep_compressed: bool,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            keep_compressed: true,
        }
    }
}

/// `[engine]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Seconds between the stop signal and SIGKILL, unless a client sets them; 10.
    pub stop_timeout: u32,
    /// Size in bytes at which a container's log file is rotated, unless a client sets it.
    pub log_max_size: u64,
    /// How many log files of a container are kept, unless a client sets it.
    pub log_max_files: u32,
    /// Whether containers get a small init as their first process, unless a client chooses; false.
    pub init: bool,
    /// Directories in which vendors describe devices (CDI). Later ones have priority.
    pub cdi_directories: Vec<PathBuf>,
    /// `[engine.user_namespaces]`: the users of the host to which users of containers are mapped.
    pub user_namespaces: UserNamespacesConfig,
    /// `[engine.runtimes.NAME]`: further OCI runtimes that clients may select by name.
    pub runtimes: BTreeMap<String, RuntimeConfig>,
    /// `[engine.networks]`: container networks.
    pub networks: NetworksConfig,
}

/// `[engine.networks]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworksConfig {
    /// The link of the default bridge network; `none`: there is no such network.
    pub bridge: String,
    /// Its address with prefix length, such as `172.17.0.1/16`; without one, the first free subnet
    /// of the pools.
    pub address: Option<String>,
    /// Its IPv6 address with prefix length. With one, containers in it have IPv6, too.
    pub address_ipv6: Option<String>,
    /// The part of its subnet that containers get addresses from, such as `172.17.8.0/24`; only with an
    /// address.
    pub range: Option<String>,
    /// The same for IPv6.
    pub range_ipv6: Option<String>,
    /// Its maximum transmission unit in bytes, 68 to 65535.
    pub mtu: Option<u32>,
    /// Whether its containers reach each other; true.
    pub inter_container: bool,
    /// The host's address for published ports that name none; the default is all addresses.
    pub publish_address: Option<IpAddr>,
    /// The pools of automatic subnets; the default is Docker's pools.
    pub address_pools: Vec<AddressPool>,
    /// Name servers of containers that name none; the host's.
    pub nameservers: Vec<IpAddr>,
    /// Search domains of containers that name none; the host's.
    pub search: Vec<String>,
    /// Options of the resolv.conf of containers that name none, such as `ndots:2`; the host's.
    pub resolver_options: Vec<String>,
    /// Whether what leaves the default bridge gets the host's address; true.
    pub masquerade: bool,
    /// What `host-gateway` means to containers: one address of each family; the default bridge's.
    pub host_addresses: Vec<IpAddr>,
    /// Whether published ports are reached at the containers' own addresses by every link; false.
    pub direct_routing: bool,
    /// The mark, `0x1` or `0x1/0xff`, of packets that the packet filter lets pass to and from containers.
    pub accept_mark: Option<String>,
    /// Options that new networks of a driver get when clients do not give them, by the driver's name.
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
}

/// One entry of `address_pools`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    /// All addresses: `10.200.0.0/16`.
    pub base: String,
    /// Prefix length of each subnet.
    pub size: u8,
}

impl Default for NetworksConfig {
    fn default() -> Self {
        Self {
            bridge: "docker0".to_owned(),
            address: None,
            address_ipv6: None,
            range: None,
            range_ipv6: None,
            mtu: None,
            inter_container: true,
            publish_address: None,
            address_pools: Vec::new(),
            nameservers: Vec::new(),
            search: Vec::new(),
            resolver_options: Vec::new(),
            masquerade: true,
            host_addresses: Vec::new(),
            direct_routing: false,
            accept_mark: None,
            default_options: BTreeMap::new(),
        }
    }
}

/// `[engine.user_namespaces]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserNamespacesConfig {
    /// Give containers a user namespace unless a client says `--userns=host`; false.
    pub enabled: bool,
    /// The user and group of the host to which root in such a container is mapped; 100000. Nothing
    /// else may use the ids from there on.
    pub base: u32,
    /// How many users and groups there are in such a container; 65536.
    pub size: u32,
}

impl UserNamespacesConfig {
    /// The default user range of containers; `None`: the host's users.
    pub fn range(&self) -> Option<UserRange> {
        let Self {
            enabled,
            base,
            size,
        } = *self;
        enabled.then_some(UserRange { base, size })
    }
}

impl Default for UserNamespacesConfig {
    fn default() -> Self {
        // The first range that /etc/subuid usually has.
        Self {
            enabled: false,
            base: 100_000,
            size: 65_536,
        }
    }
}

/// `[engine.runtimes.NAME]`: a program that understands runc's command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The program.
    pub path: PathBuf,
    /// Arguments before its command.
    #[serde(default)]
    pub arguments: Vec<String>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            stop_timeout: 10,
            log_max_size: 16 << 20,
            log_max_files: 5,
            cdi_directories: ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec(),
            init: false,
            user_namespaces: UserNamespacesConfig::default(),
            runtimes: BTreeMap::new(),
            networks: NetworksConfig::default(),
        }
    }
}
