//! A call for each operation. Setting and removing can be repeated: the second time changes
//! nothing.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use keelson_model::ip::IpPrefix;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressProtocol, CacheInfo};
use netlink_packet_route::link::{InfoData, InfoVeth};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourState};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, LinkBridge, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::convert;
use crate::{Address, Link, LinkKind, Neighbour, Netlink, NetlinkError, NewLink, Route, Rule};

/// Names the operation of a request that failed.
fn failed(operation: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |source| NetlinkError::Request {
        operation: operation.into(),
        source,
    }
}

/// The object may have been removed already, with its link or its address.
fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Links. Operations name the link by its index, which stays when the link is renamed.
impl Netlink {
    /// All links, by index.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let found: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list links"))?;
        let mut links: Vec<_> = found.iter().filter_map(convert::link).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The link of a name.
    ///
    /// # Errors
    /// See [`NetlinkError::is_not_found`] when there is no such link.
    pub async fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        let request = self.handle.link().get().match_name(name.to_owned());
        let found: Vec<_> = request
            .execute()
            .try_collect()
            .await
            .map_err(failed(format!("find link {name}")))?;
        let link = found.iter().find_map(convert::link);
        link.ok_or_else(|| failed(format!("find link {name}"))(rtnetlink::Error::RequestFailed))
    }

    /// Creates a virtual link, switched off.
    ///
    /// # Errors
    /// The name is taken or too long, or the kernel does not have the kind.
    pub async fn create_link(&self, new: NewLink<'_>) -> Result<(), NetlinkError> {
        let message = match new.kind {
            LinkKind::Dummy => LinkDummy::new(new.name).build(),
            LinkKind::Bridge => LinkBridge::new(new.name).build(),
            LinkKind::Veth { peer, namespace } => {
                let mut other = LinkMessageBuilder::<LinkUnspec>::new().name(peer.to_owned());
                if let Some(namespace) = namespace {
                    other = other.setns_by_fd(namespace.as_raw_fd());
                }
                LinkVeth::new(new.name, peer)
                    .set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())))
                    .build()
            }
        };
        let request = self.handle.link().add(message);
        let operation = format!("create link {}", new.name);
        request.execute().await.map_err(failed(operation))
    }

    /// Removes a virtual link.
    ///
    /// # Errors
    /// It is not a virtual link.
    pub async fn remove_link(&self, index: u32) -> Result<(), NetlinkError> {
        let removed = self.handle.link().del(index).execute().await;
        ignore_missing(removed.map_err(failed(format!("remove link {index}"))))
    }

    /// Switches a link on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up();
        self.set_link(message, format!("switch link {index} on"))
            .await
    }

    /// Switches a link off.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).down();
        self.set_link(message, format!("switch link {index} off"))
            .await
    }

    /// Sets the maximum transmission unit in bytes.
    ///
    /// # Errors
    /// The link does not support it.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu);
        self.set_link(message, format!("set MTU {mtu} of link {index}"))
            .await
    }

    /// Renames a link. It must be switched off before Linux 6.2.
    ///
    /// # Errors
    /// The name is taken or too long.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).name(name.to_owned());
        self.set_link(message, format!("rename link {index} to {name}"))
            .await
    }

    /// Makes a link a port of a bridge; `None` removes it from its bridge.
    ///
    /// # Errors
    /// The other link is not a bridge.
    pub async fn set_controller(
        &self,
        index: u32,
        controller: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index);
        let message = match controller {
            Some(controller) => message.controller(controller),
            None => message.nocontroller(),
        };
        self.set_link(message, format!("set the bridge of link {index}"))
            .await
    }

    /// Moves a link into another network namespace. It loses its addresses and is switched off.
    ///
    /// # Errors
    /// The name is taken there.
    pub async fn move_to(&self, index: u32, namespace: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).setns_by_fd(namespace.as_raw_fd());
        self.set_link(message, format!("move link {index} to a namespace"))
            .await
    }

    async fn set_link(
        &self,
        message: LinkMessageBuilder<LinkUnspec>,
        operation: String,
    ) -> Result<(), NetlinkError> {
        let request = self.handle.link().set(message.build());
        request.execute().await.map_err(failed(operation))
    }
}

/// Addresses.
impl Netlink {
    /// The addresses of all links.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let found: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list addresses"))?;
        Ok(found.iter().filter_map(convert::address).collect())
    }

    /// Adds an address, or changes how long it is valid.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn set_address(&self, address: &Address) -> Result<(), NetlinkError> {
        let prefix = address.prefix;
        let mut request = self
            .handle
            .address()
            .add(address.link, prefix.address, prefix.length)
            .replace();
        let seconds = address.lifetime.unwrap_or(u32::MAX);
        let mut times = CacheInfo::default();
        times.ifa_valid = seconds;
        times.ifa_preferred = seconds;
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(times));
        if address.protocol != 0 {
            attributes.push(AddressAttribute::Protocol(AddressProtocol::from(
                address.protocol,
            )));
        }
        let operation = format!("add address {prefix}");
        request.execute().await.map_err(failed(operation))
    }

    /// Removes an address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_address(&self, index: u32, prefix: IpPrefix) -> Result<(), NetlinkError> {
        let addresses = self.handle.address();
        let mut request = addresses.add(index, prefix.address, prefix.length);
        let message = std::mem::take(request.message_mut());
        let removed = addresses.del(message).execute().await;
        ignore_missing(removed.map_err(failed(format!("remove address {prefix}"))))
    }
}

/// Routes.
impl Netlink {
    /// The unicast routes with one next hop, of all tables.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
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
        Ok(routes)
    }

    /// Adds a route, or replaces the route of the same destination, metric and table.
    ///
    /// # Errors
    /// The gateway or the source address can't be reached from the link.
    pub async fn set_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let operation = format!("add route to {}", route.destination);
        let Some(message) = convert::route_message(route) else {
            return Err(NetlinkError::MixedFamilies { operation });
        };
        let request = self.handle.route().add(message).replace();
        request.execute().await.map_err(failed(operation))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let operation = format!("remove route to {}", route.destination);
        let Some(message) = convert::route_message(route) else {
            return Err(NetlinkError::MixedFamilies { operation });
        };
        let removed = self.handle.route().del(message).execute().await;
        ignore_missing(removed.map_err(failed(operation)))
    }
}

/// Rules.
impl Netlink {
    /// The rules that select a routing table.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in [IpVersion::V4, IpVersion::V6] {
            let ipv6 = matches!(family, IpVersion::V6);
            let found: Vec<_> = match self.handle.rule().get(family).execute().try_collect().await {
                Ok(found) => found,
                // A kernel without IPv6 has no such rules.
                Err(_) if ipv6 => Vec::new(),
                Err(error) => return Err(failed("list rules")(error)),
            };
            rules.extend(found.iter().filter_map(convert::rule));
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// There is such a rule already.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let operation = format!("add rule {}", rule.priority);
        let message = Self::rule_message(rule, &operation)?;
        let mut request = self.handle.rule().add();
        *request.message_mut() = message;
        request.execute().await.map_err(failed(operation))
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let operation = format!("remove rule {}", rule.priority);
        let message = Self::rule_message(rule, &operation)?;
        let removed = self.handle.rule().del(message).execute().await;
        ignore_missing(removed.map_err(failed(operation)))
    }

    fn rule_message(rule: &Rule, operation: &str) -> Result<RuleMessage, NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = convert::family(rule.ipv6);
        message.header.action = RuleAction::ToTable;
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(rule.priority));
        attributes.push(RuleAttribute::Table(rule.table));
        for prefix in [rule.source, rule.destination].into_iter().flatten() {
            if prefix.address.is_ipv6() != rule.ipv6 {
                return Err(NetlinkError::MixedFamilies {
                    operation: operation.to_owned(),
                });
            }
        }
        if let Some(source) = rule.source {
            message.header.src_len = source.length;
            attributes.push(RuleAttribute::Source(source.address));
        }
        if let Some(destination) = rule.destination {
            message.header.dst_len = destination.length;
            attributes.push(RuleAttribute::Destination(destination.address));
        }
        if let Some(mark) = rule.mark {
            attributes.push(RuleAttribute::FwMark(mark));
        }
        Ok(message)
    }
}

/// Neighbours.
impl Netlink {
    /// The neighbour tables of all links.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let found: Vec<_> = self
            .handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list neighbours"))?;
        Ok(found.iter().filter_map(convert::neighbour).collect())
    }

    /// Adds an entry to a neighbour table, or replaces it.
    ///
    /// # Errors
    /// There is no such link.
    pub async fn set_neighbour(&self, neighbour: &Neighbour) -> Result<(), NetlinkError> {
        let state = match neighbour.permanent {
            true => NeighbourState::Permanent,
            false => NeighbourState::Reachable,
        };
        let mut request = self
            .handle
            .neighbours()
            .add(neighbour.link, neighbour.address)
            .state(state)
            .replace();
        if let Some(mac) = neighbour.mac {
            request = request.link_layer_address(&mac);
        }
        let operation = format!("add neighbour {}", neighbour.address);
        request.execute().await.map_err(failed(operation))
    }

    /// Removes an entry from a neighbour table.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_neighbour(&self, link: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut request = self.handle.neighbours().add(link, address);
        let mut message = std::mem::take(request.message_mut());
        let attributes = &mut message.attributes;
        attributes.retain(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)));
        let removed = self.handle.neighbours().del(message).execute().await;
        ignore_missing(removed.map_err(failed(format!("remove neighbour {address}"))))
    }
}
