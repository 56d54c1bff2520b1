//! Default routes of containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_model::ip::IpPrefix;
use keelson_netlink::{Request, Route, RouteProtocol, TABLE_MAIN};

use crate::{Driver, Endpoint, IpvlanMode, Network};

/// A default route through an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct DefaultRoute {
    /// Its family.
    pub(in crate::kernel) ipv6: bool,
    /// The next hop; `None`: all addresses are on the link.
    pub(in crate::kernel) gateway: Option<IpAddr>,
}

impl DefaultRoute {
    fn route(&self, index: u32) -> Route {
        let address = match self.ipv6 {
            true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        Route {
            table: TABLE_MAIN,
            link: index,
            destination: IpPrefix { address, length: 0 },
            gateway: self.gateway,
            metric: 0,
            source: None,
            // The protocol number that distinguishes our routes from the container's own.
            protocol: RouteProtocol::Static,
        }
    }

    /// The request that adds it, through the interface with this index. It replaces an existing
    /// one.
    pub(in crate::kernel) fn add(&self, index: u32) -> Request {
        Request::SetRoute(self.route(index))
    }
}

/// The default routes through an endpoint.
pub(in crate::kernel) fn default_routes(
    network: &Network,
    endpoint: &Endpoint,
) -> Vec<DefaultRoute> {
    if network.internal {
        return Vec::new();
    }
    // A link that routes by itself needs no gateway. Other links of the host get a route only on
    // request, because only the operator knows the gateway.
    let routes_itself = match &network.driver {
        Driver::Ipvlan(parent) => matches!(parent.mode, IpvlanMode::L3(_) | IpvlanMode::L3S(_)),
        _ => false,
    };
    let families = [
        (
            endpoint.default_ipv4 && endpoint.ipv4.is_some(),
            endpoint.gateway_ipv4.map(IpAddr::V4),
            false,
        ),
        (
            endpoint.default_ipv6 && endpoint.ipv6.is_some(),
            endpoint.gateway_ipv6.map(IpAddr::V6),
            true,
        ),
    ];
    let mut routes = Vec::new();
    for (default, gateway, ipv6) in families {
        let gateway = gateway.filter(|_| !routes_itself);
        if default && (routes_itself || gateway.is_some()) {
            routes.push(DefaultRoute { ipv6, gateway });
        }
    }
    routes
}

/// The requests that change a container's default routes to the wanted ones. `wanted`: the routes,
/// each with the index of its interface; `present`: all routes of the container. Routes that the
/// container itself has added are kept. A route is replaced before others are removed, so that
/// there is always one.
pub(in crate::kernel) fn move_defaults(
    wanted: &[(u32, DefaultRoute)],
    present: &[Route],
) -> Vec<Request> {
    let additions: Vec<_> = wanted
        .iter()
        .map(|(index, route)| route.route(*index))
        .collect();
    let ours = present.iter().filter(|route| {
        route.table == TABLE_MAIN
            && route.destination.length == 0
            && route.protocol == RouteProtocol::Static
    });
    let is_wanted = |route: &Route| {
        additions.iter().any(|wanted| {
            let same = |family: &Route| family.destination.address.is_ipv6();
            wanted.link == route.link
                && wanted.gateway == route.gateway
                && same(wanted) == same(route)
        })
    };
    // The kernel replaces the first route of the same destination and metric, which may be the one
    // that should stay. Then the other one is removed here. Removing a missing route is no error.
    let stale = ours.filter(|route| !is_wanted(route)).cloned();
    let stale: Vec<_> = stale.map(Request::RemoveRoute).collect();
    additions
        .iter()
        .cloned()
        .map(Request::SetRoute)
        .chain(stale)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_default() -> impl Strategy<Value = DefaultRoute> {
        (any::<bool>(), prop::option::of(1u8..4)).prop_map(|(ipv6, gateway)| {
            let gateway = gateway.map(|last| match ipv6 {
                true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())),
                false => IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
            });
            DefaultRoute { ipv6, gateway }
        })
    }

    /// A model of the kernel's handling of these requests.
    fn apply(routes: &mut Vec<Route>, request: &Request) {
        match request {
            Request::SetRoute(new) => {
                let same = |old: &&mut Route| {
                    old.destination == new.destination && old.metric == new.metric
                };
                match routes.iter_mut().find(same) {
                    Some(old) => *old = new.clone(),
                    None => routes.push(new.clone()),
                }
            }
            Request::RemoveRoute(gone) => routes.retain(|route| route != gone),
            other => panic!("{other}"),
        }
    }

    proptest! {
        /// At most one endpoint of a container has the default route of a family.
        #[test]
        fn the_wanted_routes_and_the_containers_own_remain(
            present in prop::collection::vec((2u32..5, any_default()), 0..4),
            wanted in prop::collection::vec((2u32..5, any_default()), 0..4),
            foreign in any::<bool>(),
        ) {
            let mut wanted = wanted;
            let mut families = std::collections::BTreeSet::new();
            wanted.retain(|(_, route)| families.insert(route.ipv6));
            let mut routes = Vec::new();
            for (number, (index, route)) in present.iter().enumerate() {
                let route = route.route(*index);
                // Several routes of one destination differ by their metrics.
                routes.push(Route { metric: u32::try_from(number).unwrap() * 100, ..route });
            }
            let own = Route {
                metric: 7,
                protocol: RouteProtocol::Boot,
                ..DefaultRoute { ipv6: false, gateway: None }.route(9)
            };
            if foreign {
                routes.push(own.clone());
            }
            let requests = move_defaults(&wanted, &routes);
            for request in &requests {
                apply(&mut routes, request);
            }
            let ours: Vec<_> = routes
                .iter()
                .filter(|route| route.protocol == RouteProtocol::Static)
                .map(|route| (route.link, route.gateway, route.destination.address.is_ipv6()))
                .collect();
            for (index, route) in &wanted {
                prop_assert!(ours.contains(&(*index, route.gateway, route.ipv6)));
            }
            for (index, gateway, ipv6) in &ours {
                let route = DefaultRoute { ipv6: *ipv6, gateway: *gateway };
                prop_assert!(wanted.contains(&(*index, route)));
            }
            prop_assert_eq!(routes.contains(&own), foreign);
        }
    }
}
