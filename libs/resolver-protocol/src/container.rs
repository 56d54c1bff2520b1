//! What the resolver knows of one container.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A container: the names by which others find it, and how its own queries are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its identifier.
    pub id: String,
    /// Its networks, in the order in which they are searched for names.
    #[serde(default)]
    pub networks: Vec<Membership>,
    /// The name servers for names that no container has, in the order in which they are asked.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// Whether its resolv.conf sets `ndots`. Then an unknown name of one label is not forwarded:
    /// the client tries it with its search domains.
    #[serde(default)]
    pub ndots_set: bool,
}

/// A container in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's identifier.
    pub network: String,
    /// The network's name, which may follow a container's name after a dot.
    pub name: String,
    /// The container's names there. A reverse look-up of its addresses returns the first one.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its addresses there.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Names for other containers that only this container knows (links).
    #[serde(default)]
    pub links: Vec<NamedLink>,
}

/// A name for another container in the same network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedLink {
    /// What it is called.
    pub alias: String,
    /// The other container: its identifier or one of its names.
    pub target: String,
}

/// A name server for names that no container has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// Its address.
    pub address: IpAddr,
    /// The name of the link, for a link-local IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its port.
    #[serde(default = "port", skip_serializing_if = "is_usual")]
    pub port: u16,
    /// The network namespace from which it is asked.
    pub origin: Origin,
}

/// The port of name servers.
const PORT: u16 = 53;

const fn port() -> u16 {
    PORT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_usual(port: &u16) -> bool {
    *port == PORT
}

impl Upstream {
    /// A name server at the usual port.
    #[must_use]
    pub const fn new(address: IpAddr, origin: Origin) -> Self {
        Self {
            address,
            zone: None,
            port: PORT,
            origin,
        }
    }
}

/// A network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The container's.
    Container,
    /// The host's: for servers that only the host reaches, such as one at a loopback address.
    Host,
}
