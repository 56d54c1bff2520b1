//! What networks are, and the connections of running containers to them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use keelson_model::ip::IpPrefix;
use keelson_model::spec::{ConnectionSpec, Mac, Port, PublishedPort};
use serde::{Deserialize, Serialize};

/// An event of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkEvent {
    /// What happened.
    pub action: NetworkAction,
    /// The network's identifier; empty for a prune.
    pub id: String,
    /// Its name; empty for a prune.
    pub name: String,
    /// The name of its driver; empty for a prune.
    pub driver: &'static str,
    /// Nanoseconds since 1970.
    pub time: i64,
}

/// What happened to a network. Containers are named by their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkAction {
    /// It was created.
    Create,
    /// A container was connected to it.
    Connect {
        /// The container.
        container: String,
    },
    /// A container was disconnected from it.
    Disconnect {
        /// The container.
        container: String,
    },
    /// It is gone.
    Destroy,
    /// Unused networks were removed.
    Prune,
}

/// What a running container had in its networks when an earlier engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its identifier.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Its connections.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub bindings: Vec<Binding>,
}

/// A running container in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMember {
    /// Its identifier.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Its connection.
    pub endpoint: Endpoint,
}

/// A network to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// `bridge`, `macvlan` or `ipvlan`; empty: `bridge`.
    pub driver: String,
    /// Whether containers in it reach only each other and the host.
    pub internal: bool,
    /// Kept for clients; has no meaning on one machine.
    pub attachable: bool,
    /// Whether containers get IPv4 addresses; `None`: yes.
    pub ipv4: Option<bool>,
    /// Whether containers get IPv6 addresses; `None`: if a default option says so.
    pub ipv6: Option<bool>,
    /// Address management.
    pub addressing: Addressing,
    /// Options of the driver, as they were given.
    pub options: BTreeMap<String, String>,
    /// Labels, which only clients interpret.
    pub labels: BTreeMap<String, String>,
}

/// The requested address management.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addressing {
    /// `default`, `null`; empty: `default`.
    pub driver: String,
    /// Options of that driver.
    pub options: Option<BTreeMap<String, String>>,
    /// Subnets, as texts, because they are checked all at once. An empty text was not given.
    pub subnets: Vec<AskedSubnet>,
}

/// A requested subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AskedSubnet {
    /// `192.0.2.0/24`. For a subnet from the default pools, request none.
    pub subnet: String,
    /// Where automatic addresses are taken from.
    pub range: String,
    /// The address of the bridge, and the default route of containers.
    pub gateway: String,
    /// Addresses that others have, by their hosts' names.
    pub auxiliary: BTreeMap<String, String>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Network address with its prefix length; host bits are zero.
    pub prefix: IpPrefix,
    /// Where automatic addresses are taken from; `None`: the whole subnet.
    pub range: Option<IpPrefix>,
    /// The address of the bridge, and the default route of containers.
    pub gateway: Option<IpAddr>,
    /// Addresses that others have, by their hosts' names.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, unique.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its driver, with the driver's options.
    pub driver: Driver,
    /// Whether only the host reaches its containers, and they only the host.
    pub internal: bool,
    /// Kept for clients.
    pub attachable: bool,
    /// Whether containers get IPv4 addresses.
    pub ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub ipv6: bool,
    /// Its subnets: those of IPv4 first.
    pub subnets: Vec<Subnet>,
    /// The requested address management.
    pub asked: Addressing,
    /// Options of the driver, as they were given.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is predefined, so that it can't be removed.
    pub predefined: bool,
    /// Why its document can't be read. Such a network is listed, holds its subnets if they are
    /// known, and can only be removed by name.
    pub unreadable: Option<String>,
}

impl Network {
    /// The subnets of a family.
    pub fn subnets_of(&self, ipv6: bool) -> impl Iterator<Item = &Subnet> {
        let all = self.subnets.iter();
        all.filter(move |subnet| subnet.prefix.address.is_ipv6() == ipv6)
    }

    /// The options of a bridge network.
    pub const fn bridge(&self) -> Option<&Bridge> {
        match &self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }
}

/// A network's driver, with the driver's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// A bridge of the host.
    Bridge(Bridge),
    /// Macvlan: further hardware addresses on a link of the host.
    Macvlan(Parent<MacvlanMode>),
    /// Ipvlan: further addresses on a link of the host.
    Ipvlan(Parent<IpvlanMode>),
    /// The host's own network.
    Host,
    /// Only loopback.
    Nothing,
}

impl Driver {
    /// The names of all drivers, sorted.
    pub const NAMES: [&str; 5] = ["bridge", "host", "ipvlan", "macvlan", "null"];

    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bridge(_) => "bridge",
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
            Self::Host => "host",
            Self::Nothing => "null",
        }
    }
}

/// Options of a bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Name of the bridge's link: at most 15 bytes.
    pub link: String,
    /// Whether its containers may reach each other.
    pub inter_container: bool,
    /// Whether outgoing packets get an address of the host.
    pub masquerade: bool,
    /// The source address of outgoing packets, instead of that of the outgoing link.
    pub source_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source_ipv6: Option<Ipv6Addr>,
    /// The address of the host for published ports that name none.
    pub default_binding: Option<IpAddr>,
    /// How IPv4 is routed.
    pub mode_ipv4: GatewayMode,
    /// How IPv6 is routed.
    pub mode_ipv6: GatewayMode,
    /// Maximum transmission unit in bytes; `None`: the kernel's.
    pub mtu: Option<u32>,
    /// The name of interfaces in containers, without their number.
    pub interface_prefix: String,
    /// Whether the bridge gets no IPv4 address.
    pub inhibit_ipv4: bool,
    /// Links of the host whose neighbours may reach containers directly.
    pub trusted: Vec<String>,
}

impl Bridge {
    /// A bridge of this name with the default options.
    pub fn new(link: impl Into<String>) -> Self {
        Self {
            link: link.into(),
            inter_container: true,
            masquerade: true,
            source_ipv4: None,
            source_ipv6: None,
            default_binding: None,
            mode_ipv4: GatewayMode::Nat,
            mode_ipv6: GatewayMode::Nat,
            mtu: None,
            interface_prefix: "eth".to_owned(),
            inhibit_ipv4: false,
            trusted: Vec::new(),
        }
    }

    /// How a family is routed.
    pub const fn mode(&self, ipv6: bool) -> GatewayMode {
        match ipv6 {
            true => self.mode_ipv6,
            false => self.mode_ipv4,
        }
    }
}

/// How packets between a network and others are routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatewayMode {
    /// Published ports are reached only at addresses of the host.
    Nat,
    /// The same, but any port of a container is also reached at its own address.
    NatUnprotected,
    /// Containers are reached at their own addresses, but only at published ports.
    Routed,
    /// The bridge has no address: containers reach only each other.
    Isolated,
}

/// A network on a link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent<M> {
    /// The link of the host; `None`: a dummy link, which is created with the network.
    pub link: Option<ParentLink>,
    /// The mode of the containers' links.
    pub mode: M,
    /// Maximum transmission unit in bytes; `None`: the link's.
    pub mtu: Option<u32>,
}

/// A link of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    /// Its name.
    pub name: String,
    /// `(eth0, 10)` for `eth0.10`. If it does not exist, it is created, and removed with the
    /// network.
    pub vlan: Option<(String, u16)>,
}

/// How macvlan links forward. See `ip-link(8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's mode of the same name")]
pub enum MacvlanMode {
    Bridge,
    Private,
    Vepa,
    Passthru,
}

/// How ipvlan links forward. See `ip-link(8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's mode of the same name")]
pub enum IpvlanMode {
    L2(IpvlanFlag),
    L3(IpvlanFlag),
    L3S(IpvlanFlag),
}

/// Who else on the parent link can be reached. See `ip-link(8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's flag of the same name")]
pub enum IpvlanFlag {
    Bridge,
    Private,
    Vepa,
}

/// The connection of a running container to a network: what was allocated for the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits, new for each run.
    pub id: String,
    /// The network's identifier.
    pub network: String,
    /// The requested connection.
    pub asked: ConnectionSpec,
    /// Address and prefix length.
    #[serde(with = "prefix_text", default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<IpPrefix>,
    /// Address and prefix length.
    #[serde(with = "prefix_text", default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<IpPrefix>,
    /// The network's IPv4 gateway, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ipv4: Option<Ipv4Addr>,
    /// The network's IPv6 gateway, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ipv6: Option<Ipv6Addr>,
    /// Hardware address; `None` if the interface shares that of its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The link's name in the container.
    pub interface: String,
    /// The name of its other end on the host; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_link: String,
    /// Whether the container's IPv4 default route leads here.
    #[serde(default)]
    pub default_ipv4: bool,
    /// Whether the container's IPv6 default route leads here.
    #[serde(default)]
    pub default_ipv6: bool,
}

/// A published port of a running container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    /// The request for it.
    pub asked: PublishedPort,
    /// The container's port.
    pub port: Port,
    /// The host's address; an unspecified one (`0.0.0.0` or `::`) means all of its family.
    pub host: IpAddr,
    /// The host's port; 0 if the network is routed, because then no port of the host is used.
    pub host_port: u16,
}

/// Writes prefixes in documents as text.
mod prefix_text {
    use keelson_model::ip::IpPrefix;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        prefix: &Option<IpPrefix>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match prefix {
            Some(prefix) => serializer.collect_str(prefix),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpPrefix>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom))
            .transpose()
    }
}
