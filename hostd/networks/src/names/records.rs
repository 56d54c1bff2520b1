//! Derives what the resolver must know of a container from its connections and the host's name
//! servers. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use keelson_model::spec::ContainerLink;
use keelson_resolver_protocol::{Container, Membership, NamedLink, Origin, Upstream};

use super::resolv_conf::{ResolvConf, Server, Wishes};
use crate::types::{Endpoint, Network};

/// A running container: its names, and how its own queries are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// Its identifier.
    pub id: String,
    /// Its networks, in the order in which they are searched for names. See [`names_in`].
    pub networks: Vec<NetworkNames>,
    /// Its creator's changes to its resolv.conf.
    pub wishes: Wishes,
    /// Whether it has IPv6. Otherwise IPv6 name servers are asked from the host's network
    /// namespace.
    pub ipv6: bool,
    /// Whether name servers may be asked from the host's network namespace. Only for containers
    /// with access to the outside, because a query itself is such access (CVE-2024-29018).
    pub may_ask_host: bool,
}

/// A container in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkNames {
    /// The network's identifier.
    pub network: String,
    /// The network's name.
    pub name: String,
    /// The container's names there, the most important first.
    pub names: Vec<String>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// Names for other containers that only it knows (links).
    pub links: Vec<ContainerLink>,
}

/// Length of a short identifier in digits.
const SHORT: usize = 12;

/// A container's names in its networks: its name, its aliases, its short identifier and its
/// hostname. Predefined networks have no names. The network of the default route is searched first.
#[must_use]
pub fn names_in(
    id: &str,
    name: &str,
    hostname: &str,
    connections: &[(&Network, &Endpoint)],
) -> Vec<NetworkNames> {
    let mut connections: Vec<_> = connections
        .iter()
        .filter(|(network, _)| !network.predefined)
        .collect();
    connections.sort_by_key(|(_, endpoint)| !(endpoint.default_ipv4 || endpoint.default_ipv6));
    let names_of = |endpoint: &Endpoint| {
        let aliases = endpoint.asked.aliases.iter().map(String::as_str);
        let mut seen = BTreeSet::new();
        [name]
            .into_iter()
            .chain(aliases)
            .chain([id.get(..SHORT).unwrap_or(id), hostname])
            .filter(|name| !name.is_empty() && seen.insert(name.to_ascii_lowercase()))
            .map(str::to_owned)
            .collect()
    };
    connections
        .into_iter()
        .map(|(network, endpoint)| NetworkNames {
            network: network.id.clone(),
            name: network.name.clone(),
            names: names_of(endpoint),
            addresses: [endpoint.ipv4, endpoint.ipv6]
                .into_iter()
                .flatten()
                .map(|prefix| prefix.address)
                .collect(),
            links: endpoint.asked.links.clone(),
        })
        .collect()
}

/// The description of a container for the resolver.
pub(super) fn record(container: &ContainerNames, host: &ResolvConf) -> Container {
    let conf = host.with(&container.wishes);
    let own = !container.wishes.servers.is_empty();
    let upstreams = conf.servers.iter();
    Container {
        id: container.id.clone(),
        networks: container.networks.iter().map(membership).collect(),
        upstreams: upstreams
            .filter_map(|server| upstream(server, own, container))
            .collect(),
        ndots_set: conf.sets_ndots(),
    }
}

fn membership(network: &NetworkNames) -> Membership {
    let link = |link: &ContainerLink| NamedLink {
        alias: link.alias.clone(),
        target: link.container.clone(),
    };
    Membership {
        network: network.network.clone(),
        name: network.name.clone(),
        names: network.names.clone(),
        addresses: network.addresses.clone(),
        links: network.links.iter().map(link).collect(),
    }
}

/// The namespace from which a name server is asked; `None`: it is not asked. Servers that the
/// container's creator named (`own`) are always asked from the container's namespace.
fn upstream(server: &Server, own: bool, container: &ContainerNames) -> Option<Upstream> {
    const ITSELF: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
    let from_host = !own
        && (server.address.is_loopback()
            || server.zone.is_some()
            || (server.address.is_ipv6() && !container.ipv6));
    let origin = match (from_host, container.may_ask_host) {
        (true, false) => return None,
        (true, true) => Origin::Host,
        // In the container's namespace this address is the resolver itself. On a host that is a
        // container of another engine, it is another server.
        (false, _) if server.address == ITSELF => return None,
        (false, _) => Origin::Container,
    };
    Some(Upstream {
        zone: server.zone.clone(),
        ..Upstream::new(server.address, origin)
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use keelson_model::spec::ConnectionSpec;

    use super::*;
    use crate::types::{Addressing, Bridge, Driver};

    fn network(name: &str, predefined: bool) -> Network {
        Network {
            id: format!("id-of-{name}"),
            name: name.to_owned(),
            created: Timestamp::UNIX_EPOCH,
            driver: Driver::Bridge(Bridge::new("br-test")),
            internal: false,
            attachable: false,
            ipv4: true,
            ipv6: true,
            subnets: Vec::new(),
            asked: Addressing::default(),
            options: Default::default(),
            labels: Default::default(),
            predefined,
            unreadable: None,
        }
    }

    fn endpoint(network: &Network, address: &str, aliases: &[&str]) -> Endpoint {
        Endpoint {
            id: "e".to_owned(),
            network: network.id.clone(),
            asked: ConnectionSpec {
                aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
                ..ConnectionSpec::default()
            },
            ipv4: Some(address.parse().unwrap()),
            ipv6: None,
            gateway_ipv4: None,
            gateway_ipv6: None,
            mac: None,
            interface: "eth0".to_owned(),
            host_link: String::new(),
            default_ipv4: false,
            default_ipv6: false,
        }
    }

    #[test]
    fn a_container_has_its_names_in_each_user_defined_network() {
        let id = "0123456789abcdef".repeat(4);
        let (default, one, two) = (
            network("bridge", true),
            network("one", false),
            network("two", false),
        );
        let ends = [
            endpoint(&default, "172.17.0.2/16", &[]),
            endpoint(&one, "172.18.0.2/16", &["api", "WEB", "api"]),
            Endpoint {
                default_ipv4: true,
                ipv6: Some("fd00::2/64".parse().unwrap()),
                ..endpoint(&two, "172.19.0.2/16", &[])
            },
        ];
        let connections = [(&default, &ends[0]), (&one, &ends[1]), (&two, &ends[2])];
        let names = names_in(&id, "web", "0123456789ab", &connections);
        // The network with the default route comes first; the default bridge has no names.
        let networks: Vec<&str> = names.iter().map(|names| names.name.as_str()).collect();
        assert_eq!(networks, ["two", "one"]);
        assert_eq!(names[1].names, ["web", "api", "0123456789ab"]);
        let addresses: Vec<String> = names[0].addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(addresses, ["172.19.0.2", "fd00::2"]);
        let names = names_in(&id, "web", "host.example", &connections);
        assert_eq!(names[0].names, ["web", "0123456789ab", "host.example"]);
    }

    fn upstreams(container: &ContainerNames, host: &str) -> Vec<(String, Origin)> {
        let record = record(container, &ResolvConf::parse(host));
        let upstreams = record.upstreams.into_iter();
        upstreams
            .map(|upstream| (upstream.address.to_string(), upstream.origin))
            .collect()
    }

    const HOST: &str = "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n\
        nameserver 2001:db8::53\noptions ndots:1";

    #[test]
    fn local_servers_are_asked_from_the_host_if_the_container_has_outside_access() {
        let mut container = ContainerNames {
            may_ask_host: true,
            ..ContainerNames::default()
        };
        let named = |list: &[(&str, Origin)]| -> Vec<(String, Origin)> {
            list.iter()
                .map(|&(address, origin)| (address.to_owned(), origin))
                .collect()
        };
        use Origin::{Container, Host};
        let all = [
            ("127.0.0.53", Host),
            ("192.0.2.1", Container),
            ("fe80::1", Host),
            ("2001:db8::53", Host),
        ];
        assert_eq!(upstreams(&container, HOST), named(&all));
        container.ipv6 = true;
        assert_eq!(
            upstreams(&container, HOST)[3],
            ("2001:db8::53".to_owned(), Container)
        );
        // A container that is only in internal networks.
        container.may_ask_host = false;
        let inside = [("192.0.2.1", Container), ("2001:db8::53", Container)];
        assert_eq!(upstreams(&container, HOST), named(&inside));
    }

    #[test]
    fn configured_servers_are_asked_from_the_container_except_the_resolver() {
        let servers = ["172.18.0.9", "127.0.0.1", "127.0.0.11"];
        let container = ContainerNames {
            wishes: Wishes {
                servers: servers.iter().map(|text| text.parse().unwrap()).collect(),
                ..Wishes::default()
            },
            ..ContainerNames::default()
        };
        let expected = ["172.18.0.9", "127.0.0.1"].map(|text| (text.to_owned(), Origin::Container));
        assert_eq!(upstreams(&container, HOST), expected);
        // An engine whose host is a container of another engine.
        let container = ContainerNames {
            may_ask_host: true,
            ..ContainerNames::default()
        };
        let expected = [("127.0.0.11".to_owned(), Origin::Host)];
        assert_eq!(upstreams(&container, "nameserver 127.0.0.11"), expected);
        assert!(record(&container, &ResolvConf::parse(HOST)).ndots_set);
        assert!(!record(&container, &ResolvConf::default()).ndots_set);
    }
}
