//! The order of a container's interfaces, their names, and where its default routes lead. Pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use keelson_model::spec::ConnectionSpec;

use crate::NetworkError;
use crate::options::routes_by_device;
use crate::types::{Driver, Endpoint, Network};

/// Where interfaces get their names from when their driver says nothing.
const USUAL_PREFIX: &str = "eth";

/// A connection that is asked for, with the network that it means.
pub(super) type Wish<'a> = (&'a ConnectionSpec, &'a Network);

/// Puts connections into the order of their interfaces: the main one, which is the first that was asked
/// for, then those with higher priority, then by the networks' names. So a container finds the same
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
    // All that are asked for come first, so that no number is in their way.
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

/// A connection and its network, as far as it is there.
pub(super) type Known<'a> = (&'a Endpoint, Option<&'a Network>);

/// Where the default route of a family leads, of all connections of a container: the identifier of the
/// one with the highest priority, then with both families, then with the first name of a network. A
/// network without a way out never has it: connections to elsewhere fail at once then.
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
