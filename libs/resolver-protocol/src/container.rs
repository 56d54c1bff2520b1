//! What the resolver knows of one container.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A container: under which names others find it, and how its own questions are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its identifier.
    pub id: String,
    /// Its networks, in the order in which names are looked for.
    #[serde(default)]
    pub networks: Vec<Membership>,
    /// Whom to ask for names that no container has, in this order.
    #[serde(default)]
    pub upstreams: Vec<Upstream>,
    /// The number of dots that makes a name absolute was set in its resolv.conf. Then an unknown name of
    /// one label is not asked for elsewhere: the client tries it with its search domains.
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
    /// The container's names there. The first one is what its addresses are translated back to.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its addresses there.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Names for others that only this container uses.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// A name for another container in the same network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is called.
    pub alias: String,
    /// The other container: its identifier or one of its names.
    pub target: String,
}

/// A name server that is asked for what no container is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Upstream {
    /// Its address.
    pub address: IpAddr,
    /// The link of a link-local IPv6 address, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its port.
    #[serde(default = "port", skip_serializing_if = "is_usual")]
    pub port: u16,
    /// From which network namespace it is asked.
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
