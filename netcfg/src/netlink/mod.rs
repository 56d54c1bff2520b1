//! rtnetlink. The only module that knows the netlink crates, whose interfaces change often.

mod convert;

use std::fs;
use std::io;
use std::net::IpAddr;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use keelson_config::IpPrefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressProtocol, CacheInfo};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};

use crate::model::{Observed, Origin, Route};
use crate::plan::Action;

/// `IFA_PROTO` of the addresses that netcfg adds, by which it knows them again after a restart.
/// The kernel uses 1 to 3 itself and leaves the others to programs (Linux 5.18).
pub(crate) const ADDRESS_PROTOCOL: u8 = 75;

const ESRCH: i32 = 3;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;

/// A netlink request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket could be opened.
    #[error("open netlink socket: {0}")]
    Socket(io::Error),
    /// The kernel refused a request.
    #[error("{operation}: {}", describe(.source))]
    Request {
        /// What was asked.
        operation: String,
        /// The answer.
        source: rtnetlink::Error,
    },
    /// A switch below /proc/sys could not be set.
    #[error("write {path}: {source}")]
    Sysctl {
        /// The file.
        path: String,
        /// The answer.
        source: io::Error,
    },
}

/// The kernel's error in the words of the system, not of the netlink crate.
fn describe(error: &rtnetlink::Error) -> String {
    match errno(error) {
        0 => error.to_string(),
        errno => io::Error::from_raw_os_error(errno).to_string(),
    }
}

fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().saturating_abs(),
        _ => 0,
    }
}

/// A connection to the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Netlink {
    handle: Handle,
}

/// Tells that something changed. What it was is asked for anew each time, so a lost message does
/// no harm as long as a later one arrives.
pub(crate) struct Monitor {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Monitor {
    /// Waits for the next change; `false` when the connection broke.
    pub(crate) async fn changed(&mut self) -> bool {
        let first = self.messages.next().await.is_some();
        // A burst of changes is one change.
        while let Ok(message) = self.messages.try_recv() {
            drop(message);
        }
        first
    }
}

impl Netlink {
    /// Connects. Must be called inside the runtime.
    pub(crate) fn connect() -> Result<(Self, Monitor), NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ])
        .map_err(NetlinkError::Socket)?;
        tokio::spawn(connection);
        Ok((Self { handle }, Monitor { messages }))
    }

    /// Reads links, addresses and routes.
    pub(crate) async fn observe(&self) -> Result<Observed, NetlinkError> {
        let failed = |operation: &str| {
            let operation = operation.to_owned();
            move |source| NetlinkError::Request { operation, source }
        };
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list links"))?;
        let mut links: Vec<_> = links.iter().filter_map(convert::link).collect();
        links.sort_by_key(|link| link.index);
        for link in &mut links {
            link.accept_ra = read_accept_ra(&link.name);
        }
        let addresses: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list addresses"))?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let found: Vec<_> = match self.handle.route().get(query).execute().try_collect().await {
                Ok(found) => found,
                // A kernel without IPv6 has no such routes.
                Err(_) if family == AddressFamily::Inet6 => Vec::new(),
                Err(error) => return Err(failed("list routes")(error)),
            };
            routes.extend(found.iter().filter_map(convert::route));
        }
        Ok(Observed {
            links,
            addresses: addresses.iter().filter_map(convert::address).collect(),
            routes,
        })
    }

    /// Does one step of a plan. Doing it twice is as good as once.
    pub(crate) async fn apply(&self, action: &Action) -> Result<(), NetlinkError> {
        let result = match action {
            Action::AcceptRa { link, .. } => return accept_ra(link),
            Action::Mtu { index, mtu, .. } => {
                let message = LinkUnspec::new_with_index(*index).mtu(*mtu).build();
                self.handle.link().set(message).execute().await
            }
            Action::Up { index, .. } => {
                let message = LinkUnspec::new_with_index(*index).up().build();
                self.handle.link().set(message).execute().await
            }
            Action::SetAddress {
                index,
                prefix,
                lifetime,
                ..
            } => self.set_address(*index, *prefix, *lifetime).await,
            Action::RemoveAddress { index, prefix, .. } => {
                let mut request = self
                    .handle
                    .address()
                    .add(*index, prefix.address, prefix.length);
                let message = std::mem::take(request.message_mut());
                ignore_missing(self.handle.address().del(message).execute().await)
            }
            Action::SetRoute { route, .. } => match route_message(route) {
                Some(message) => self.handle.route().add(message).replace().execute().await,
                None => Ok(()),
            },
            Action::RemoveRoute { route, .. } => match route_message(route) {
                Some(message) => ignore_missing(self.handle.route().del(message).execute().await),
                None => Ok(()),
            },
        };
        result.map_err(|source| NetlinkError::Request {
            operation: action.to_string(),
            source,
        })
    }

    async fn set_address(
        &self,
        index: u32,
        prefix: IpPrefix,
        lifetime: Option<u32>,
    ) -> Result<(), rtnetlink::Error> {
        let mut request = self
            .handle
            .address()
            .add(index, prefix.address, prefix.length)
            .replace();
        let seconds = lifetime.unwrap_or(u32::MAX);
        let mut times = CacheInfo::default();
        times.ifa_valid = seconds;
        times.ifa_preferred = seconds;
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(times));
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(
            ADDRESS_PROTOCOL,
        )));
        request.execute().await
    }
}

/// What is to be removed may have gone by itself, together with its link or its address.
fn ignore_missing(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if [ESRCH, ENODEV, EADDRNOTAVAIL].contains(&errno(&error)) => Ok(()),
        other => other,
    }
}

/// `None` when addresses of both families are mixed, which the plan never does.
fn route_message(route: &Route) -> Option<RouteMessage> {
    let protocol = match route.origin {
        Origin::Static => RouteProtocol::Static,
        Origin::Dhcp => RouteProtocol::Dhcp,
    };
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.address, route.destination.length)
        .ok()?
        .output_interface(route.link)
        .priority(route.metric)
        .protocol(protocol);
    builder = match route.gateway {
        // On-link: a gateway outside of the address's prefix (an address with /32) is reached
        // by asking for its hardware address, as the configuration says it is there.
        Some(gateway) => builder.gateway(gateway).ok()?.onlink(),
        None => builder.scope(RouteScope::Link),
    };
    if let Some(source) = route.source {
        builder = builder.pref_source(source).ok()?;
    }
    Some(builder.build())
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

fn accept_ra(link: &str) -> Result<(), NetlinkError> {
    let path = accept_ra_path(link);
    fs::write(&path, "2").map_err(|source| NetlinkError::Sysctl { path, source })
}
