//! The effects: reads the state of the kernel's network, and carries out the steps of a plan.

use std::fs;
use std::io;

use keelson_netlink::{Netlink, NetlinkError, RouteProtocol, TABLE_MAIN};

use crate::model::{Address, Link, Observed, Origin, Route};
use crate::plan::Action;

/// `IFA_PROTO` of the addresses that netcfg adds. It recognises them by this after a restart.
pub(crate) const ADDRESS_PROTOCOL: u8 = 75;

/// The kernel's network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The request to the kernel failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A step of a plan failed.
    #[error("{action}: {}", source.reason())]
    Action {
        /// The step.
        action: String,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// A setting below /proc/sys could not be written.
    #[error("write {path}: {source}")]
    Sysctl {
        /// The file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The network of this process's namespace.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    netlink: Netlink,
}

impl Kernel {
    pub(crate) fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    /// Reads links, addresses and routes.
    pub(crate) async fn observe(&self) -> Result<Observed, KernelError> {
        let links = self.netlink.links().await?;
        let addresses = self.netlink.addresses().await?;
        let routes = self.netlink.routes().await?;
        Ok(Observed {
            links: links.into_iter().map(link).collect(),
            addresses: addresses.iter().map(address).collect(),
            routes: routes.into_iter().filter_map(route).collect(),
        })
    }

    /// Carries out one step of a plan. A step can be repeated.
    pub(crate) async fn apply(&self, action: &Action) -> Result<(), KernelError> {
        let netlink = &self.netlink;
        let result = match action {
            Action::AcceptRa { link, .. } => return accept_ra(link),
            Action::Mtu { index, mtu, .. } => netlink.set_mtu(*index, *mtu).await,
            Action::Up { index, .. } => netlink.set_up(*index).await,
            Action::SetAddress {
                index,
                prefix,
                lifetime,
                ..
            } => {
                let address = keelson_netlink::Address {
                    link: *index,
                    prefix: *prefix,
                    protocol: ADDRESS_PROTOCOL,
                    lifetime: *lifetime,
                };
                netlink.set_address(&address).await
            }
            Action::RemoveAddress { index, prefix, .. } => {
                netlink.remove_address(*index, *prefix).await
            }
            Action::SetRoute { route, .. } => netlink.set_route(&for_kernel(route)).await,
            Action::RemoveRoute { route, .. } => netlink.remove_route(&for_kernel(route)).await,
        };
        result.map_err(|source| KernelError::Action {
            action: action.to_string(),
            source,
        })
    }
}

fn link(link: keelson_netlink::Link) -> Link {
    Link {
        index: link.index,
        accept_ra: read_accept_ra(&link.name),
        name: link.name,
        mac: link.mac,
        ethernet: link.ethernet,
        physical: link.kind.is_none() && !link.loopback,
        loopback: link.loopback,
        up: link.up,
        carrier: link.carrier,
        mtu: link.mtu,
        max_mtu: link.max_mtu,
    }
}

fn address(address: &keelson_netlink::Address) -> Address {
    Address {
        link: address.link,
        prefix: address.prefix,
        ours: address.protocol == ADDRESS_PROTOCOL,
        lifetime: address.lifetime,
    }
}

/// A route of the main table with one of our protocols.
fn route(route: keelson_netlink::Route) -> Option<Route> {
    let origin = match route.protocol {
        RouteProtocol::Static => Origin::Static,
        RouteProtocol::Dhcp => Origin::Dhcp,
        _ => return None,
    };
    (route.table == TABLE_MAIN).then_some(Route {
        link: route.link,
        destination: route.destination,
        gateway: route.gateway,
        metric: route.metric,
        source: route.source,
        origin,
    })
}

fn for_kernel(route: &Route) -> keelson_netlink::Route {
    keelson_netlink::Route {
        table: TABLE_MAIN,
        link: route.link,
        destination: route.destination,
        gateway: route.gateway,
        metric: route.metric,
        source: route.source,
        protocol: match route.origin {
            Origin::Static => RouteProtocol::Static,
            Origin::Dhcp => RouteProtocol::Dhcp,
        },
    }
}

fn accept_ra_path(link: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{link}/accept_ra")
}

fn read_accept_ra(link: &str) -> Option<u8> {
    fs::read_to_string(accept_ra_path(link))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn accept_ra(link: &str) -> Result<(), KernelError> {
    let path = accept_ra_path(link);
    fs::write(&path, "2").map_err(|source| KernelError::Sysctl { path, source })
}
