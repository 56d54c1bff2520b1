//! Allocates a connection's addresses, and checks its request.

use std::net::IpAddr;

use keelson_model::ip::IpPrefix;
use keelson_model::spec::{ConnectionSpec, Mac};

use super::new_id;
use super::state::State;
use crate::NetworkError;
use crate::ipam::AddressError;
use crate::types::{Driver, Endpoint, Network};

/// Names of auxiliary addresses that replace the bridge's address as the containers' gateway.
const OTHER_GATEWAYS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

/// Checks that a request fits a network. Reports all problems at once.
pub(super) fn check(network: &Network, connection: &ConnectionSpec) -> Result<(), NetworkError> {
    if let Some(reason) = &network.unreadable {
        return Err(NetworkError::Unreadable {
            name: network.name.clone(),
            reason: reason.clone(),
        });
    }
    let mut problems = Vec::new();
    let addresses = [
        connection.ipv4.map(IpAddr::V4),
        connection.ipv6.map(IpAddr::V6),
    ];
    let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
    if network.predefined {
        if !addresses.is_empty() {
            problems.push(
                "user specified IP address is supported on user defined networks only".to_owned(),
            );
        }
        if !connection.aliases.is_empty() {
            problems.push(
                "network-scoped alias is supported only for containers in user defined networks"
                    .to_owned(),
            );
        }
    } else {
        let misfits = addresses.iter().filter_map(|one| misfit(network, *one));
        problems.extend(misfits);
    }
    if connection.mac.is_some() && matches!(network.driver, Driver::Ipvlan(_)) {
        problems.push("ipvlan interfaces do not support custom mac address assignment".to_owned());
    }
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(NetworkError::Endpoint(one.clone())),
        many => Err(NetworkError::Endpoint(format!("* {}", many.join("\n* ")))),
    }
}

/// Why a container can't request an address.
fn misfit(network: &Network, address: IpAddr) -> Option<String> {
    let asked = network.asked.subnets.iter();
    let asked = asked.filter_map(|one| one.subnet.parse::<IpPrefix>().ok());
    let mut of_family = asked.filter(|one| one.address.is_ipv6() == address.is_ipv6());
    let has_family = match address {
        IpAddr::V4(_) => network.ipv4,
        IpAddr::V6(_) => network.ipv6,
    };
    if !has_family || of_family.next().is_none() {
        return Some("user specified IP address is supported only when connecting to networks with user configured subnets".to_owned());
    }
    let mut subnets = network.subnets.iter();
    match subnets.any(|subnet| subnet.prefix.contains(address)) {
        true => None,
        false => Some(AddressError::Outside(address).to_string()),
    }
}

/// Allocates a container's addresses in a network: both or none.
pub(super) fn give(
    state: &mut State,
    container: &str,
    name: &str,
    connection: &ConnectionSpec,
    network: &Network,
) -> Result<Endpoint, NetworkError> {
    let avoided = state.configured_by_others(network, container);
    let mac = match network.driver {
        Driver::Bridge(_) | Driver::Macvlan(_) => Some(connection.mac.unwrap_or_else(new_mac)),
        Driver::Ipvlan(_) | Driver::Host | Driver::Nothing => None,
    };
    let mut take = |ipv6: bool, asked: Option<IpAddr>| {
        if network.subnets_of(ipv6).next().is_none() {
            return Ok(None);
        }
        let previous = state.previous(container, &network.id, ipv6);
        let previous = previous.filter(|address| !avoided.contains(address));
        let Some(entry) = state.network_mut(&network.id) else {
            return Err(NetworkError::NotFound(network.name.clone()));
        };
        if let (None, Some(address)) = (asked, previous)
            && let Ok(prefix) = entry.space.take(address, name)
        {
            return Ok(Some(prefix));
        }
        match asked {
            Some(address) => Ok(Some(entry.space.take(address, name)?)),
            None => {
                let any = entry.space.take_any(ipv6, name, &avoided);
                any.map(Some).ok_or_else(|| NetworkError::Exhausted {
                    family: if ipv6 { 6 } else { 4 },
                    name: network.name.clone(),
                    id: network.id.clone(),
                })
            }
        }
    };
    let ipv4 = take(false, connection.ipv4.map(IpAddr::V4))?;
    let ipv6 = match take(true, connection.ipv6.map(IpAddr::V6)) {
        Ok(ipv6) => ipv6,
        Err(error) => {
            if let (Some(prefix), Some(entry)) = (ipv4, state.network_mut(&network.id)) {
                entry.space.release(prefix.address);
            }
            return Err(error);
        }
    };
    let gateway = |prefix: Option<IpPrefix>| gateway(network, prefix?.address);
    Ok(Endpoint {
        id: new_id(),
        network: network.id.clone(),
        asked: connection.clone(),
        ipv4,
        ipv6,
        gateway_ipv4: gateway(ipv4).and_then(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }),
        gateway_ipv6: gateway(ipv6).and_then(|address| match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }),
        mac,
        interface: String::new(),
        host_link: String::new(),
        default_ipv4: false,
        default_ipv6: false,
    })
}

/// The gateway of the subnet of an address.
fn gateway(network: &Network, address: IpAddr) -> Option<IpAddr> {
    let mut subnets = network.subnets.iter();
    let subnet = subnets.find(|subnet| subnet.prefix.contains(address))?;
    let other = match network.driver {
        Driver::Bridge(_) => {
            let mut named = OTHER_GATEWAYS.iter();
            named.find_map(|name| subnet.auxiliary.get(*name).copied())
        }
        _ => None,
    };
    other.or(subnet.gateway)
}

/// Releases the addresses of connections.
pub(super) fn take_back(state: &mut State, ends: &[Endpoint]) {
    for end in ends {
        let Some(entry) = state.network_mut(&end.network) else {
            continue;
        };
        for prefix in [end.ipv4, end.ipv6].into_iter().flatten() {
            entry.space.release(prefix.address);
        }
    }
}

/// A random hardware address: a locally administered unicast one. With 46 random bits, no two are
/// equal in practice.
fn new_mac() -> Mac {
    let mut mac: Mac = rand::random();
    if let Some(first) = mac.first_mut() {
        *first = (*first & 0xfc) | 0x02;
    }
    mac
}

/// A name that none of our other links has.
pub(super) fn new_host_link(state: &State, taken: &[&str]) -> String {
    loop {
        let number: u32 = rand::random();
        let name = format!("veth{:07x}", number & 0x0fff_ffff);
        if !taken.contains(&&*name) && !state.host_links().any(|link| link == name) {
            return name;
        }
    }
}
