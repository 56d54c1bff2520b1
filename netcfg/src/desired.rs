//! Computes the desired state of the kernel from configuration, links and leases. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use keelson_config::IpPrefix;
use keelson_model::host::{LinkConfig, MachineConfig};

use crate::dhcp::lease::Lease;
use crate::dhcp::machine::Time;
use crate::matching::is_meant;
use crate::model::{Desired, DesiredLink, Link, Origin, Route};

/// Metric of the first link's routes. It increases by one for each link, so that two default routes
/// don't compete. The kernel also uses 1024 for IPv6 routes.
const METRIC: u32 = 1024;

/// A lease and its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLease {
    /// The lease.
    pub lease: Lease,
    /// When it began.
    pub granted: Time,
}

/// The link that is managed when the configuration names none: the first Ethernet link that is
/// hardware. `current` stays chosen as long as it exists, so that a card that is plugged in later
/// does not get the address of the one in use.
#[must_use]
pub fn default_link(links: &[Link], current: Option<u32>) -> Option<u32> {
    let candidates = || {
        links
            .iter()
            .filter(|link| link.ethernet && link.physical && !link.loopback)
            .map(|link| link.index)
    };
    candidates()
        .find(|index| Some(*index) == current)
        .or_else(|| candidates().min())
}

/// The desired state of the kernel, and the problems to report to an operator.
#[must_use]
pub fn desired(
    config: &MachineConfig,
    links: &[Link],
    chosen: Option<u32>,
    leases: &BTreeMap<u32, HeldLease>,
    now: Time,
) -> (Desired, Vec<String>) {
    let mut problems = Vec::new();
    let mut out = Vec::new();
    for link in links.iter().filter(|link| link.loopback) {
        // The kernel adds 127.0.0.1 and ::1 itself when the link is switched on.
        out.push(DesiredLink {
            index: link.index,
            mtu: None,
            accept_ra: false,
            dhcp4: false,
            addresses: Vec::new(),
            routes: Vec::new(),
        });
    }
    let automatic;
    let configured: &[LinkConfig] = if config.network.link.is_empty() {
        let chosen = links.iter().find(|link| Some(link.index) == chosen);
        automatic = chosen.map(|link| LinkConfig {
            name: link.name.clone(),
            dhcp4: true,
            ..LinkConfig::default()
        });
        if automatic.is_none() {
            problems.push("this machine has no Ethernet link".to_owned());
        }
        automatic.as_slice()
    } else {
        &config.network.link
    };
    for (position, wanted) in configured.iter().enumerate() {
        // A pattern means the first link that no earlier entry is about.
        let free = |link: &&Link| !out.iter().any(|known| known.index == link.index);
        match links
            .iter()
            .filter(free)
            .find(|link| is_meant(wanted, link))
        {
            Some(link) => {
                let metric = METRIC.saturating_add(u32::try_from(position).unwrap_or(u32::MAX));
                let lease = leases.get(&link.index).filter(|_| wanted.dhcp4);
                out.push(desired_link(wanted, link, lease, metric, now));
            }
            None => problems.push(format!(
                "the configuration names link {}, which this machine does not have",
                wanted.name
            )),
        }
    }
    (Desired { links: out }, problems)
}

fn desired_link(
    wanted: &LinkConfig,
    link: &Link,
    held: Option<&HeldLease>,
    metric: u32,
    now: Time,
) -> DesiredLink {
    let mut addresses: Vec<(IpPrefix, Option<u32>)> = Vec::new();
    for prefix in wanted.addresses.iter().filter_map(|text| text.parse().ok()) {
        if !addresses.iter().any(|(known, _)| *known == prefix) {
            addresses.push((prefix, None));
        }
    }
    let mut routes = Vec::new();
    for gateway in &wanted.gateways {
        let unspecified = match gateway {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        routes.push(Route {
            link: link.index,
            destination: IpPrefix {
                address: unspecified,
                length: 0,
            },
            gateway: Some(*gateway),
            metric,
            source: None,
            origin: Origin::Static,
        });
    }
    let mut mtu = wanted.mtu;
    if let Some(held) = held {
        let prefix = IpPrefix {
            address: held.lease.address.into(),
            length: held.lease.prefix,
        };
        if !addresses.iter().any(|(known, _)| *known == prefix) {
            addresses.push((prefix, remaining(held, now)));
        }
        // A server knows the network, but not this card.
        let leased = held.lease.mtu.map(u32::from);
        mtu = mtu.or(leased.map(|mtu| mtu.min(link.max_mtu.unwrap_or(u32::MAX))));
        for route in &held.lease.routes {
            let destination = IpPrefix {
                address: route.destination.into(),
                length: route.prefix,
            };
            // A default route of the configuration has priority over the lease's.
            if routes
                .iter()
                .any(|known: &Route| known.destination == destination)
            {
                continue;
            }
            routes.push(Route {
                link: link.index,
                destination,
                gateway: route.gateway.map(IpAddr::V4),
                metric,
                source: Some(prefix.address),
                origin: Origin::Dhcp,
            });
        }
    }
    // On-link routes first: gateways of the others may lie behind them.
    routes.sort_by_key(|route| route.gateway.is_some());
    DesiredLink {
        index: link.index,
        mtu,
        accept_ra: true,
        dhcp4: wanted.dhcp4,
        addresses,
        routes,
    }
}

/// Seconds until a lease ends, at least one: the state machine, not the plan, ends leases.
fn remaining(held: &HeldLease, now: Time) -> Option<u32> {
    if held.lease.is_infinite() {
        return None;
    }
    let end = held.granted + Duration::from_secs(held.lease.seconds.into());
    let left = end.saturating_sub(now).as_secs();
    Some(u32::try_from(left).unwrap_or(u32::MAX - 1).max(1))
}

/// The name servers: the configuration's, else the leases' in the order of the links.
#[must_use]
pub fn resolvers(
    config: &MachineConfig,
    leases: &BTreeMap<u32, HeldLease>,
) -> (Vec<IpAddr>, Vec<String>) {
    let mut servers = config.network.nameservers.clone();
    if servers.is_empty() {
        for held in leases.values() {
            for server in &held.lease.nameservers {
                push_new(&mut servers, IpAddr::V4(*server));
            }
        }
    }
    let mut search = config.network.search.clone();
    if search.is_empty() {
        for held in leases.values() {
            for domain in &held.lease.search {
                push_new(&mut search, domain.clone());
            }
        }
    }
    (servers, search)
}

/// The time servers: the configuration's, else the leases'.
#[must_use]
pub fn time_servers(config: &MachineConfig, leases: &BTreeMap<u32, HeldLease>) -> Vec<String> {
    let mut servers = config.time.servers.clone();
    if servers.is_empty() {
        for held in leases.values() {
            for server in &held.lease.ntp_servers {
                push_new(&mut servers, server.to_string());
            }
        }
    }
    servers
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::machine_tests::lease;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            ethernet: true,
            physical: true,
            loopback: false,
            up: true,
            carrier: true,
            mtu: 1500,
            max_mtu: Some(9000),
            accept_ra: Some(1),
        }
    }

    fn loopback() -> Link {
        Link {
            ethernet: false,
            physical: false,
            loopback: true,
            mac: None,
            ..link(1, "lo")
        }
    }

    fn config(text: &str) -> MachineConfig {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("etc/keelson/host.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        let loaded = keelson_config::load(&keelson_config::Sources::under(dir.path()));
        assert_eq!(loaded.problems, []);
        loaded.config
    }

    fn held() -> BTreeMap<u32, HeldLease> {
        BTreeMap::from([(
            2,
            HeldLease {
                lease: lease(),
                granted: Duration::from_secs(100),
            },
        )])
    }

    const NOW: Time = Duration::from_secs(160);

    #[test]
    fn the_first_hardware_link_is_chosen_and_kept() {
        let mut bridge = link(2, "br0");
        bridge.physical = false;
        let links = [loopback(), bridge, link(3, "eth0"), link(4, "eth1")];
        assert_eq!(default_link(&links, None), Some(3));
        assert_eq!(default_link(&links, Some(4)), Some(4));
        assert_eq!(default_link(&links, Some(2)), Some(3));
        assert_eq!(default_link(&links[..2], Some(3)), None);
    }

    #[test]
    fn without_configuration_the_chosen_link_uses_dhcp() {
        let links = [loopback(), link(2, "eth0")];
        let (desired, problems) = desired(&MachineConfig::default(), &links, Some(2), &held(), NOW);
        assert!(problems.is_empty());
        assert_eq!(desired.links.len(), 2);
        let eth0 = &desired.links[1];
        assert!(eth0.dhcp4);
        assert_eq!(
            eth0.addresses,
            [("192.0.2.50/24".parse().unwrap(), Some(3540))]
        );
        assert_eq!(eth0.routes.len(), 1);
        assert_eq!(eth0.routes[0].source, Some("192.0.2.50".parse().unwrap()));
    }

    #[test]
    fn a_machine_without_links_is_reported() {
        let (desired, problems) = desired(
            &MachineConfig::default(),
            &[loopback()],
            None,
            &BTreeMap::new(),
            NOW,
        );
        assert_eq!(desired.links.len(), 1);
        assert_eq!(problems, ["this machine has no Ethernet link"]);
    }

    #[test]
    fn static_configuration_has_priority_over_the_lease() {
        let config = config(
            "[network]\nnameservers = ['198.51.100.53']\nsearch = ['corp.example']\n\
             [[network.link]]\nname = 'eth9'\n\
             [[network.link]]\nname = 'eth0'\ndhcp4 = true\nmtu = 1400\n\
             addresses = ['198.51.100.5/24', '2001:db8::5/64']\n\
             gateways = ['198.51.100.1', 'fe80::1']\n\
             [time]\nservers = ['ntp.example']",
        );
        let links = [loopback(), link(2, "eth0")];
        let (desired, problems) = desired(&config, &links, None, &held(), NOW);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("eth9"));
        let eth0 = &desired.links[1];
        assert_eq!(eth0.mtu, Some(1400));
        assert_eq!(eth0.addresses.len(), 3);
        assert_eq!(eth0.routes.len(), 2);
        assert!(
            eth0.routes
                .iter()
                .all(|route| route.origin == Origin::Static)
        );
        let (servers, search) = resolvers(&config, &held());
        assert_eq!(servers, ["198.51.100.53".parse::<IpAddr>().unwrap()]);
        assert_eq!(search, ["corp.example"]);
        assert_eq!(time_servers(&config, &held()), ["ntp.example"]);
    }

    #[test]
    fn an_mtu_too_large_for_the_card_is_limited() {
        let mut held = held();
        held.values_mut().next().unwrap().lease.mtu = Some(u16::MAX);
        let links = [loopback(), link(2, "eth0")];
        let (desired, _) = desired(&MachineConfig::default(), &links, Some(2), &held, NOW);
        assert_eq!(desired.links[1].mtu, Some(9000));
    }

    #[test]
    fn a_lease_of_a_link_without_dhcp_is_ignored() {
        let config = config("[[network.link]]\nname = 'eth0'");
        let links = [loopback(), link(2, "eth0")];
        let (desired, _) = desired(&config, &links, None, &held(), NOW);
        assert!(desired.links[1].addresses.is_empty());
    }

    #[test]
    fn the_lease_names_the_servers() {
        let config = MachineConfig::default();
        let (servers, search) = resolvers(&config, &held());
        assert_eq!(servers, ["192.0.2.53".parse::<IpAddr>().unwrap()]);
        assert_eq!(search, ["lan.example"]);
        assert_eq!(time_servers(&config, &held()), ["192.0.2.123"]);
    }
}
