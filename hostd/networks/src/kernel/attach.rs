//! Creates, configures and removes the interfaces of containers.
//!
//! A start waits for all of this. So everything is sent in as few batches as the order allows, and
//! the container's namespace is entered once. Nothing here waits for an RCU grace period: links are
//! created with their names, addresses and namespaces, and nothing is removed.

use std::os::fd::{AsFd, BorrowedFd};

use keelson_netlink::{
    Batches, Link, LinkChange, LinkId, Macvlan, NetlinkError, Request, Site, VirtualKind,
    VirtualLink,
};
use tracing::{debug, warn};

use super::KernelError;
use super::announce::Announcement;
use super::host::{ensure, no_kind};
use super::namespace::ContainerNamespace;
use super::plan::endpoint::{Attachment, EndpointPlan};
use super::plan::network::remove;
use super::plan::routes::{DefaultRoute, move_defaults};
use super::settings::Setting;

/// Index of the loopback link, in every namespace.
const LOOPBACK: u32 = 1;

/// The result of attaching a container.
#[derive(Debug)]
pub(crate) struct Attached<T> {
    /// The result of the function that ran inside.
    pub(crate) inside: T,
    /// Whether the container has IPv6: its own kernel parameters may switch it off. Then its
    /// interfaces have no IPv6 addresses, whatever their networks have.
    pub(crate) ipv6: bool,
}

/// Creates and configures the interfaces of a container, and then runs `inside` in its namespace. A
/// failure leaves no interface.
pub(super) fn attach<T>(
    site: &mut Site,
    namespace: &ContainerNamespace,
    plans: &[EndpointPlan],
    inside: impl FnOnce() -> T,
) -> Result<(Attached<T>, Vec<Announcement>), KernelError> {
    let mut made = Vec::new();
    let result = make(&mut site.batches, namespace.as_fd(), plans, &mut made).and_then(|()| {
        site.visit(namespace.as_fd(), |host| {
            let ipv6 = has_ipv6();
            let announcements = configure(host, plans, ipv6)?;
            let inside = inside();
            Ok((Attached { inside, ipv6 }, announcements))
        })?
    });
    if result.is_err() {
        for plan in plans.iter().filter(|plan| made.contains(&plan.id)) {
            let undone = match plan.host_link() {
                Some(link) => {
                    let request = Request::RemoveLink(LinkId::Name(link.to_owned()));
                    site.batches
                        .run(&[request], None)
                        .map_err(KernelError::from)
                }
                None => detach_inside(site, namespace, plan),
            };
            if let Err(error) = undone {
                warn!(interface = plan.interface, %error, "an interface is left");
            }
        }
    }
    result
}

/// Creates the interfaces. The identifiers of endpoints whose creation has begun are added to
/// `made`.
fn make(
    batches: &mut Batches,
    namespace: BorrowedFd<'_>,
    plans: &[EndpointPlan],
    made: &mut Vec<String>,
) -> Result<(), KernelError> {
    let ids: Vec<_> = plans
        .iter()
        .filter_map(|plan| plan.on.name())
        .map(|name| LinkId::Name(name.to_owned()))
        .collect();
    let found = batches.find_links(&ids)?;
    let mut requests = Vec::new();
    for (plan, link) in plans.iter().zip(found) {
        let on = match link {
            Some(link) => link,
            // Something has removed the link; the network still exists.
            None => ensure(batches, &plan.on)?.ok_or_else(|| KernelError::Vanished {
                interface: plan.interface.clone(),
            })?,
        };
        requests.push(plan.create(on.index, on.mtu));
    }
    let results = batches.try_all(&requests, Some(namespace))?;
    let mut failed = None;
    for ((plan, request), result) in plans.iter().zip(&requests).zip(results) {
        match (result, request) {
            (Ok(()), _) => made.push(plan.id.clone()),
            (Err(error), Request::CreateLink(link)) => {
                failed.get_or_insert_with(|| match plan.on.name() {
                    Some(parent) if is_taken(&error, link) => KernelError::ParentTaken {
                        link: parent.to_owned(),
                    },
                    _ => no_kind(error, &link.kind, &link.name),
                });
            }
            (Err(error), _) => {
                failed.get_or_insert_with(|| error.into());
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    for setting in plans.iter().flat_map(EndpointPlan::host_settings) {
        setting.apply()?;
    }
    let up: Vec<_> = plans.iter().filter_map(EndpointPlan::host_up).collect();
    Ok(batches.run(&up, None)?)
}

/// Whether the kernel refused a link because of what else its parent has: it answers EINVAL where one of
/// them is of mode passthru, and for an MTU above the parent's, and EBUSY in the other cases.
fn is_taken(error: &NetlinkError, link: &VirtualLink) -> bool {
    const EBUSY: i32 = 16;
    const EINVAL: i32 = 22;
    let passthru = match link.kind {
        VirtualKind::Macvlan { mode, .. } => mode == Macvlan::Passthru,
        VirtualKind::Ipvlan { .. } => false,
        _ => return false,
    };
    match error.errno() {
        Some(EBUSY) => true,
        Some(EINVAL) => passthru && link.mtu.is_none(),
        _ => false,
    }
}

/// Whether the namespace of the calling thread has IPv6: the kernel may lack it, and containers may
/// be started with a parameter that switches it off. The loopback link tells, since that one is
/// not configured by networks.
fn has_ipv6() -> bool {
    let loopback = Setting::of_link(true, "lo", "disable_ipv6", 0);
    loopback.current().as_deref() == Some("0")
}

/// Configures the interfaces. Call this in the container's namespace. `host`: the connection in the
/// host's namespace.
fn configure(
    host: &mut Batches,
    plans: &[EndpointPlan],
    ipv6: bool,
) -> Result<Vec<Announcement>, KernelError> {
    let mut batches = Batches::open()?;
    let ids: Vec<_> = plans
        .iter()
        .map(|plan| LinkId::Name(plan.first_name()))
        .collect();
    let found = batches.find_links(&ids)?;
    name(&mut batches, plans, &found)?;
    // Programs in the container may rely on it, whatever runtime started them.
    let mut requests = vec![Request::ChangeLink(
        LinkId::Index(LOOPBACK),
        LinkChange::up(),
    )];
    let mut links = Vec::new();
    for (plan, link) in plans.iter().zip(found) {
        let link = link.ok_or_else(|| KernelError::Vanished {
            interface: plan.interface.clone(),
        })?;
        for setting in plan.settings(ipv6) {
            setting.apply()?;
        }
        requests.extend(plan.configure(link.index, ipv6));
        links.push((plan, link));
    }
    batches.run(&requests, None)?;
    settle(host, &mut batches, &links);
    let announcements = links.into_iter().filter_map(|(plan, link)| {
        Announcement::open(plan, &link, ipv6)
            .inspect_err(|error| debug!(interface = plan.interface, %error, "not announced"))
            .ok()
            .flatten()
    });
    Ok(announcements.collect())
}

/// Renames interfaces that were created under other names.
fn name(
    batches: &mut Batches,
    plans: &[EndpointPlan],
    found: &[Option<Link>],
) -> Result<(), KernelError> {
    let renames: Vec<_> = plans
        .iter()
        .zip(found)
        .filter(|(plan, _)| plan.first_name() != plan.interface)
        .filter_map(|(plan, link)| {
            let change = LinkChange {
                name: Some(plan.interface.clone()),
                ..LinkChange::default()
            };
            Some(Request::ChangeLink(
                LinkId::Index(link.as_ref()?.index),
                change,
            ))
        })
        .collect();
    match renames.is_empty() {
        true => Ok(()),
        false => Ok(batches.run(&renames, None)?),
    }
}

/// Makes the kernel notice the carriers now, by querying the links (Linux 6.7 and newer). Otherwise
/// a kernel worker does it some time later; until then an interface drops what it should send, and
/// a bridge forwards nothing. The order follows the dependencies: both ends of the pair, then the
/// bridge, which has no carrier while it has no port.
fn settle(host: &mut Batches, inside: &mut Batches, links: &[(&EndpointPlan, Link)]) {
    let ports = links.iter().filter_map(|(plan, _)| plan.host_link());
    let bridges = links
        .iter()
        .filter(|(plan, _)| plan.host_link().is_some())
        .filter_map(|(plan, _)| plan.on.name());
    let outside: Vec<_> = ports
        .chain(bridges)
        .map(|name| LinkId::Name(name.to_owned()))
        .collect();
    let ids: Vec<_> = links
        .iter()
        .map(|(_, link)| LinkId::Index(link.index))
        .collect();
    let asked = inside.find_links(&ids).and(host.find_links(&outside));
    if let Err(error) = asked {
        debug!(%error, "the carriers of links can't be queried");
    }
}

/// Switches off an endpoint's link on the host, whether the container's namespace still exists or
/// not. From then on nothing passes. Returns the link's index for its removal, which takes about
/// twenty milliseconds; `None` if there is no such link.
pub(super) fn cut(batches: &mut Batches, plan: &EndpointPlan) -> Result<Option<u32>, KernelError> {
    let Attachment::Port {
        host_link, alias, ..
    } = &plan.attachment
    else {
        return Ok(None);
    };
    let Some(link) = batches.find_link(host_link)? else {
        return Ok(None);
    };
    // A link without an alias was left by a crash before it got one.
    let ours = link.alias.as_ref().is_none_or(|found| found == alias);
    if !ours || link.kind.as_deref() != Some("veth") {
        debug!(link = host_link, "the link is not this endpoint's any more");
        return Ok(None);
    }
    let off = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    let request = Request::ChangeLink(LinkId::Index(link.index), off);
    match batches.run(&[request], None) {
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Some(link.index)),
    }
}

/// Removes a link that was switched off.
pub(super) fn remove_cut(batches: &mut Batches, index: u32) -> Result<(), KernelError> {
    Ok(batches.run(&[remove(index)], None)?)
}

/// Removes an interface without a link on the host from its container's namespace. If the container
/// has renamed it, its hardware address identifies it.
pub(super) fn detach_inside(
    site: &mut Site,
    namespace: &ContainerNamespace,
    plan: &EndpointPlan,
) -> Result<(), KernelError> {
    let removed: Result<(), NetlinkError> = site.visit(namespace.as_fd(), |_| {
        let mut batches = Batches::open()?;
        let request = plan.create(0, 0);
        let kind = match &request {
            Request::CreateLink(VirtualLink { kind, .. }) => VirtualKind::as_str(kind),
            _ => return Ok(()),
        };
        let links = batches.links()?;
        let of_kind = || {
            links
                .iter()
                .filter(|link| link.kind.as_deref() == Some(kind))
        };
        let by_mac = of_kind().find(|link| plan.mac.is_some() && link.mac == plan.mac);
        let found = by_mac.or_else(|| of_kind().find(|link| link.name == plan.interface));
        match found {
            Some(link) => batches.run(&[remove(link.index)], None),
            None => Ok(()),
        }
    })?;
    Ok(removed?)
}

/// Makes the links of running containers ports of a bridge that was created again. Containers that
/// ended meanwhile are skipped.
pub(super) fn reattach(
    batches: &mut Batches,
    bridge: u32,
    plans: &[EndpointPlan],
) -> Result<(), KernelError> {
    let requests: Vec<_> = plans
        .iter()
        .flat_map(|plan| plan.reattach(bridge))
        .collect();
    for result in batches.try_all(&requests, None)? {
        match result {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Prepares the announcement of interfaces that were created earlier.
pub(super) fn announcements(
    site: &mut Site,
    namespace: &ContainerNamespace,
    plans: &[EndpointPlan],
) -> Result<Vec<Announcement>, KernelError> {
    let opened: Result<_, KernelError> = site.visit(namespace.as_fd(), |_| {
        let mut batches = Batches::open()?;
        let ids: Vec<_> = plans
            .iter()
            .map(|plan| LinkId::Name(plan.interface.clone()))
            .collect();
        let found = batches.find_links(&ids)?;
        let ipv6 = has_ipv6();
        let announcements = plans.iter().zip(found).filter_map(|(plan, link)| {
            let opened = Announcement::open(plan, &link?, ipv6);
            opened.ok().flatten()
        });
        Ok(announcements.collect())
    })?;
    opened
}

/// Sets the default routes of a container by its endpoints.
pub(super) fn set_default_routes(
    site: &mut Site,
    namespace: &ContainerNamespace,
    plans: &[EndpointPlan],
) -> Result<(), KernelError> {
    let changed: Result<(), KernelError> = site.visit(namespace.as_fd(), |_| {
        let mut batches = Batches::open()?;
        let links = batches.links()?;
        let mut wanted: Vec<(u32, DefaultRoute)> = Vec::new();
        for plan in plans {
            let by_name = links.iter().find(|link| link.name == plan.interface);
            let by_mac = || {
                links
                    .iter()
                    .find(|link| plan.mac.is_some() && link.mac == plan.mac)
            };
            // The container may have removed its interface, which is its own business.
            let Some(link) = by_name.or_else(by_mac) else {
                continue;
            };
            let routes = plan.routes.iter().cloned();
            wanted.extend(routes.map(|route| (link.index, route)));
            for setting in plan
                .settings
                .iter()
                .filter(|setting| setting.is("rp_filter"))
            {
                setting.apply()?;
            }
        }
        let requests = move_defaults(&wanted, &batches.routes()?);
        Ok(batches.run(&requests, None)?)
    })?;
    changed
}
