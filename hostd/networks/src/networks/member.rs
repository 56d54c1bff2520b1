//! A container, as the networks see it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use keelson_model::spec::{ConnectionSpec, Port, PublishedPort};

use crate::names::resolv_conf::Wishes;
use crate::types::{Binding, Endpoint};

/// A container that starts or runs.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its host name.
    pub host_name: String,
    /// Its first process on the host; 0: it does not run.
    pub pid: i32,
    /// Whether it may have IPv6: its kernel parameters may forbid it.
    pub ipv6: bool,
    /// Its connections, the main network first; `None`: it has no network namespace of its own.
    pub connections: Option<Vec<ConnectionSpec>>,
    /// The ports that it publishes.
    pub published: Vec<PublishedPort>,
    /// Further ports, each of which is published at any free port of the host.
    pub publish_any: BTreeSet<Port>,
    /// Its own values for its resolv.conf.
    pub wishes: Wishes,
}

/// What a running container has in its networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// Its connections, in the order of their interfaces.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports.
    pub bindings: Vec<Binding>,
}

impl Run {
    /// Its addresses, in the order of its interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let prefixes = self.endpoints.iter();
        let prefixes = prefixes.flat_map(|endpoint| [endpoint.ipv4, endpoint.ipv6]);
        prefixes.flatten().map(|prefix| prefix.address)
    }
}
