//! Computes the steps from the kernel's state to the desired one: a pure function, tested without a
//! kernel.

use std::fmt;

use keelson_config::IpPrefix;

use crate::model::{Desired, DesiredLink, Link, Observed, Route};

/// Lifetimes that differ by at most this many seconds count as equal, because the kernel's count
/// down between two reads. It must be shorter than the time that a renewal adds to the shortest
/// leases.
const LIFETIME_SLACK: u32 = 2;

/// One step. `link` is the link's name, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The fields say the same as the variants.
pub enum Action {
    /// Accept router advertisements, even if the machine forwards packets.
    AcceptRa { link: String },
    /// Set the maximum transmission unit.
    Mtu { link: String, index: u32, mtu: u32 },
    /// Switch the link on.
    Up { link: String, index: u32 },
    /// Remove a route that netcfg made.
    RemoveRoute { link: String, route: Route },
    /// Remove an address that netcfg made.
    RemoveAddress {
        link: String,
        index: u32,
        prefix: IpPrefix,
    },
    /// Add an address, or change how long it is valid (in seconds).
    SetAddress {
        link: String,
        index: u32,
        prefix: IpPrefix,
        lifetime: Option<u32>,
    },
    /// Add or replace a route.
    SetRoute { link: String, route: Route },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptRa { link } => write!(f, "accept router advertisements on {link}"),
            Self::Mtu { link, mtu, .. } => write!(f, "set MTU {mtu} of {link}"),
            Self::Up { link, .. } => write!(f, "switch {link} on"),
            Self::RemoveRoute { link, route } => {
                write!(f, "remove route to {} from {link}", route.destination)
            }
            Self::RemoveAddress { link, prefix, .. } => {
                write!(f, "remove address {prefix} from {link}")
            }
            Self::SetAddress { link, prefix, .. } => write!(f, "add address {prefix} to {link}"),
            Self::SetRoute { link, route } => {
                write!(f, "add route to {}", route.destination)?;
                if let Some(gateway) = route.gateway {
                    write!(f, " via {gateway}")?;
                }
                write!(f, " on {link}")
            }
        }
    }
}

/// The steps that lead from `observed` to `desired`, in an order that the kernel accepts.
/// Empty when there is nothing to do.
///
/// Addresses and routes that netcfg did not make are not changed, and neither are links that it
/// does not manage.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Action> {
    let mut actions = Vec::new();
    for wanted in &desired.links {
        // It is no error if the link was removed since: an event reports that.
        let Some(link) = observed
            .links
            .iter()
            .find(|link| link.index == wanted.index)
        else {
            continue;
        };
        plan_link(wanted, link, observed, &mut actions);
    }
    actions
}

fn plan_link(wanted: &DesiredLink, link: &Link, observed: &Observed, actions: &mut Vec<Action>) {
    let name = || link.name.clone();
    let index = link.index;
    if wanted.accept_ra && link.accept_ra.is_some_and(|value| value != 2) {
        actions.push(Action::AcceptRa { link: name() });
    }
    if let Some(mtu) = wanted.mtu
        && mtu != link.mtu
    {
        actions.push(Action::Mtu {
            link: name(),
            index,
            mtu,
        });
    }
    if !link.up {
        actions.push(Action::Up {
            link: name(),
            index,
        });
    }
    let routes: Vec<&Route> = observed
        .routes
        .iter()
        .filter(|route| route.link == index)
        .collect();
    for route in &routes {
        if !wanted.routes.contains(route) {
            actions.push(Action::RemoveRoute {
                link: name(),
                route: (*route).clone(),
            });
        }
    }
    let addresses = || {
        observed
            .addresses
            .iter()
            .filter(|address| address.link == index)
    };
    // Before the new ones are added: if two addresses are in one network, the later is secondary
    // and would be removed together with the earlier.
    for address in addresses().filter(|address| address.ours) {
        if !wanted
            .addresses
            .iter()
            .any(|(prefix, _)| *prefix == address.prefix)
        {
            actions.push(Action::RemoveAddress {
                link: name(),
                index,
                prefix: address.prefix,
            });
        }
    }
    for (prefix, lifetime) in &wanted.addresses {
        let present = addresses()
            .any(|address| address.prefix == *prefix && same_lifetime(address.lifetime, *lifetime));
        if !present {
            actions.push(Action::SetAddress {
                link: name(),
                index,
                prefix: *prefix,
                lifetime: *lifetime,
            });
        }
    }
    for route in &wanted.routes {
        if !routes.contains(&route) {
            actions.push(Action::SetRoute {
                link: name(),
                route: route.clone(),
            });
        }
    }
}

fn same_lifetime(left: Option<u32>, right: Option<u32>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => left.abs_diff(right) <= LIFETIME_SLACK,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Origin};

    fn link() -> Link {
        Link {
            index: 2,
            name: "eth0".into(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            ethernet: true,
            physical: true,
            loopback: false,
            up: false,
            carrier: false,
            mtu: 1500,
            max_mtu: None,
            accept_ra: Some(1),
        }
    }

    fn wanted() -> DesiredLink {
        DesiredLink {
            index: 2,
            mtu: Some(1400),
            accept_ra: true,
            dhcp4: true,
            addresses: vec![("192.0.2.5/24".parse().unwrap(), Some(600))],
            routes: vec![Route {
                link: 2,
                destination: IpPrefix {
                    address: "0.0.0.0".parse().unwrap(),
                    length: 0,
                },
                gateway: Some("192.0.2.1".parse().unwrap()),
                metric: 1024,
                source: Some("192.0.2.5".parse().unwrap()),
                origin: Origin::Dhcp,
            }],
        }
    }

    /// The kernel's state after a plan was carried out.
    fn carry_out(observed: &mut Observed, actions: &[Action]) {
        for action in actions {
            match action.clone() {
                Action::AcceptRa { .. } => observed.links[0].accept_ra = Some(2),
                Action::Mtu { mtu, .. } => observed.links[0].mtu = mtu,
                Action::Up { .. } => observed.links[0].up = true,
                Action::RemoveRoute { route, .. } => observed.routes.retain(|r| *r != route),
                Action::RemoveAddress { prefix, .. } => {
                    observed.addresses.retain(|a| a.prefix != prefix);
                }
                Action::SetAddress {
                    prefix, lifetime, ..
                } => {
                    observed.addresses.retain(|a| a.prefix != prefix);
                    observed.addresses.push(Address {
                        link: 2,
                        prefix,
                        ours: true,
                        lifetime,
                    });
                }
                Action::SetRoute { route, .. } => observed.routes.push(route),
            }
        }
    }

    #[test]
    fn a_new_link_gets_everything_in_order_and_then_nothing() {
        let mut observed = Observed {
            links: vec![link()],
            ..Observed::default()
        };
        let desired = Desired {
            links: vec![wanted()],
        };
        let actions = plan(&desired, &observed);
        let words: Vec<String> = actions.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "accept router advertisements on eth0",
                "set MTU 1400 of eth0",
                "switch eth0 on",
                "add address 192.0.2.5/24 to eth0",
                "add route to 0.0.0.0/0 via 192.0.2.1 on eth0",
            ]
        );
        carry_out(&mut observed, &actions);
        assert_eq!(plan(&desired, &observed), []);
    }

    #[test]
    fn a_lost_lease_is_removed_and_addresses_of_others_stay() {
        let mut observed = Observed {
            links: vec![link()],
            ..Observed::default()
        };
        let mut desired = Desired {
            links: vec![wanted()],
        };
        let actions = plan(&desired, &observed);
        carry_out(&mut observed, &actions);
        observed.addresses.push(Address {
            link: 2,
            prefix: "198.51.100.1/24".parse().unwrap(),
            ours: false,
            lifetime: None,
        });
        observed.addresses.push(Address {
            link: 3,
            prefix: "203.0.113.1/24".parse().unwrap(),
            ours: true,
            lifetime: None,
        });
        desired.links[0].addresses.clear();
        desired.links[0].routes.clear();
        let actions = plan(&desired, &observed);
        assert!(matches!(
            actions.as_slice(),
            [Action::RemoveRoute { .. }, Action::RemoveAddress { .. }]
        ));
        carry_out(&mut observed, &actions);
        assert_eq!(observed.addresses.len(), 2);
        assert_eq!(plan(&desired, &observed), []);
    }

    #[test]
    fn a_renewed_lease_only_changes_the_lifetime() {
        let mut observed = Observed {
            links: vec![link()],
            ..Observed::default()
        };
        let mut desired = Desired {
            links: vec![wanted()],
        };
        let actions = plan(&desired, &observed);
        carry_out(&mut observed, &actions);
        observed.addresses[0].lifetime = Some(598);
        assert_eq!(plan(&desired, &observed), []);
        observed.addresses[0].lifetime = Some(300);
        assert!(matches!(
            plan(&desired, &observed).as_slice(),
            [Action::SetAddress {
                lifetime: Some(600),
                ..
            }]
        ));
        desired.links[0].addresses[0].1 = None;
        assert_eq!(plan(&desired, &observed).len(), 1);
    }

    #[test]
    fn a_link_that_has_gone_is_skipped() {
        let desired = Desired {
            links: vec![wanted()],
        };
        assert_eq!(plan(&desired, &Observed::default()), []);
    }
}
