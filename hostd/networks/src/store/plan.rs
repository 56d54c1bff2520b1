//! The order of a container's interfaces, their names, and where its default routes lead. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use keelson_model::spec::ConnectionSpec;

use crate::NetworkError;
use crate::options::routes_by_device;
use crate::types::{Driver, Endpoint, Network};

/// The default prefix of interfaces' names.
const USUAL_PREFIX: &str = "eth";

/// A requested connection, with its network.
pub(super) type Wish<'a> = (&'a ConnectionSpec, &'a Network);

/// Sorts connections in the order of their interfaces: the main one, which is the first of the
/// request, then by descending priority, then by the networks' names. So a container finds the same
/// names after each start.
pub(super) fn order(wishes: &mut [Wish<'_>]) {
    if let Some((_, others)) = wishes.split_first_mut() {
        others.sort_by(|(a, in_a), (b, in_b)| {
            let key = |spec: &ConnectionSpec| Reverse(spec.gateway_priority);
            (key(a), &in_a.name).cmp(&(key(b), &in_b.name))
        });
    }
}

/// Names for the interfaces of new connections, in their order. `used` are those of older ones.
///
/// # Errors
/// [`NetworkError::Endpoint`]: two have the same name.
pub(super) fn interfaces(
    used: impl Iterator<Item = String>,
    wishes: &[Wish<'_>],
) -> Result<Vec<String>, NetworkError> {
    let mut names: BTreeSet<String> = used.collect();
    // Requested names come first, so that no automatic name takes them.
    for (spec, network) in wishes {
        if let Some(name) = &spec.interface
            && !network.is_plain()
            && !names.insert(name.clone())
        {
            return Err(NetworkError::Endpoint(format!(
                "interface name {name} is that of another connection of the container: choose another one for network {}",
                network.name
            )));
        }
    }
    let next = |(spec, network): &Wish<'_>| {
        if network.is_plain() {
            return String::new();
        }
        if let Some(name) = &spec.interface {
            return name.clone();
        }
        let prefix = match &network.driver {
            Driver::Bridge(bridge) => &bridge.interface_prefix,
            _ => USUAL_PREFIX,
        };
        let mut numbers = 0_u32..;
        loop {
            let number = numbers.next().unwrap_or(u32::MAX);
            let name = format!("{prefix}{number}");
            if names.insert(name.clone()) {
                return name;
            }
        }
    };
    Ok(wishes.iter().map(next).collect())
}

/// A connection, and its network if that exists.
pub(super) type Known<'a> = (&'a Endpoint, Option<&'a Network>);

/// Chooses the connection of a family's default route, and returns its identifier. The order: the
/// highest priority, then both families, then the first name of a network. An internal network
/// never gets it, so that connections to elsewhere fail at once.
pub(super) fn default_route(ends: &[Known<'_>], ipv6: bool) -> Option<String> {
    let leads_out = ends.iter().filter_map(|(end, network)| {
        let network = (*network)?;
        let (has_address, has_gateway) = match ipv6 {
            true => (end.ipv6.is_some(), end.gateway_ipv6.is_some()),
            false => (end.ipv4.is_some(), end.gateway_ipv4.is_some()),
        };
        let way = has_gateway || routes_by_device(&network.driver);
        (has_address && way && !network.internal).then_some((end, network))
    });
    let best = leads_out.min_by_key(|(end, network)| {
        let both = end.ipv4.is_some() && end.ipv6.is_some();
        let priority = Reverse(end.asked.gateway_priority);
        (priority, !both, &network.name)
    });
    best.map(|(end, _)| end.id.clone())
}

#[cfg(test)]
mod tests;
