//! Creates, finds and removes the links of networks on the host.

use keelson_netlink::{
    Batches, Link, LinkChange, LinkId, NetlinkError, Request, VirtualKind, VirtualLink,
};
use tracing::warn;

use super::KernelError;
use super::marks::Owner;
use super::plan::network::{BridgePlan, HostLink, Make, PROTOCOL, ParentPlan, remove};

/// The default MTU: that of Ethernet.
const USUAL_MTU: u32 = 1500;

/// Creates a network's link. A failure leaves nothing behind. Returns the link, or `None` if the
/// network has none.
pub(super) fn ensure(batches: &mut Batches, plan: &HostLink) -> Result<Option<Link>, KernelError> {
    match plan {
        HostLink::Bridge(plan) => ensure_bridge(batches, plan).map(Some),
        HostLink::Parent(plan) => ensure_parent(batches, plan).map(Some),
        HostLink::Nothing => Ok(None),
    }
}

fn ensure_bridge(batches: &mut Batches, plan: &BridgePlan) -> Result<Link, KernelError> {
    let present = batches.find_link(&plan.link)?;
    let made = present.is_none();
    if made {
        let create = plan.create();
        batches
            .run(&[create], None)
            .map_err(|error| no_kind(error, &VirtualKind::Bridge, &plan.link))?;
    }
    let result = configure_bridge(batches, plan, made);
    if result.is_err() && made {
        // Nothing uses it yet.
        let undone = batches.run(
            &[Request::RemoveLink(LinkId::Name(plan.link.clone()))],
            None,
        );
        if let Err(error) = undone {
            warn!(bridge = plan.link, %error, "a bridge that could not be set up is left");
        }
    }
    result
}

fn configure_bridge(
    batches: &mut Batches,
    plan: &BridgePlan,
    made: bool,
) -> Result<Link, KernelError> {
    let find = |batches: &mut Batches| {
        batches
            .find_link(&plan.link)?
            .ok_or_else(|| KernelError::Vanished {
                interface: plan.link.clone(),
            })
    };
    let bridge = find(batches)?;
    if bridge.kind.as_deref() != Some("bridge") {
        return Err(KernelError::NotABridge {
            link: plan.link.clone(),
        });
    }
    let id = LinkId::Index(bridge.index);
    let ours = made || bridge.alias.as_deref() == Some(plan.alias.as_str());
    for setting in plan.settings() {
        setting.apply()?;
    }
    let mut requests = Vec::new();
    if made {
        let alias = Some(plan.alias.clone());
        let change = LinkChange {
            alias,
            ..LinkChange::default()
        };
        requests.push(Request::ChangeLink(id.clone(), change));
    }
    requests.extend(plan.set_addresses(bridge.index, &batches.addresses()?));
    requests.push(Request::ChangeLink(id.clone(), LinkChange::up()));
    batches.run(&requests, None)?;
    // An operator's bridge keeps its MTU, unless one is requested.
    let mtu = match plan.mtu {
        None if ours => Some(default_mtu(batches)?),
        asked => asked,
    };
    if let Some(mtu) = mtu.filter(|mtu| *mtu != bridge.mtu) {
        let change = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        // If the kernel refuses the value for a bridge, the interfaces may still have it.
        if let Err(error) = batches.run(&[Request::ChangeLink(id, change)], None) {
            warn!(bridge = plan.link, mtu, %error, "the bridge keeps its MTU");
        }
    }
    find(batches)
}

/// The MTU of the link of the host's default route, or the smallest if there are several: larger
/// packets would be fragmented there. Routes of all tables count, since a VRF has its own.
fn default_mtu(batches: &mut Batches) -> Result<u32, KernelError> {
    let routes = batches.routes()?;
    let defaults = routes.iter().filter(|route| route.destination.length == 0);
    let mut ids: Vec<_> = defaults.map(|route| LinkId::Index(route.link)).collect();
    ids.sort_unstable();
    ids.dedup();
    let links = batches.find_links(&ids)?.into_iter().flatten();
    let usable = links.filter(|link| !link.loopback && link.mtu > 0);
    Ok(usable.map(|link| link.mtu).min().unwrap_or(USUAL_MTU))
}

fn ensure_parent(batches: &mut Batches, plan: &ParentPlan) -> Result<Link, KernelError> {
    if let Some(link) = batches.find_link(&plan.link)? {
        return check_parent(plan, link);
    }
    let missing = |link: &str| KernelError::NoParent {
        link: link.to_owned(),
    };
    let on = match &plan.make {
        None => return Err(missing(&plan.link)),
        Some(Make::Dummy) => 0,
        Some(Make::Vlan { on, .. }) => {
            let link = batches.find_link(on)?.ok_or_else(|| missing(on))?;
            check_parent(plan, link)?.index
        }
    };
    let create = plan.create(on).ok_or_else(|| missing(&plan.link))?;
    let kind = match &create {
        Request::CreateLink(VirtualLink { kind, .. }) => kind.clone(),
        _ => VirtualKind::Dummy,
    };
    let id = || LinkId::Name(plan.link.clone());
    let alias = LinkChange {
        alias: Some(plan.alias.clone()),
        ..LinkChange::default()
    };
    let requests = [
        create,
        Request::ChangeLink(id(), alias),
        Request::ChangeLink(id(), LinkChange::up()),
    ];
    let mut results = batches.try_all(&requests, None)?.into_iter();
    if let Some(Err(error)) = results.next() {
        return Err(no_kind(error, &kind, &plan.link));
    }
    for error in results.filter_map(Result::err) {
        // A VLAN link can't be switched on while its parent is off. It can be later.
        warn!(link = plan.link, %error, "a parent link is not switched on");
    }
    let made = batches.find_link(&plan.link)?;
    made.ok_or_else(|| missing(&plan.link))
}

fn check_parent(plan: &ParentPlan, link: Link) -> Result<Link, KernelError> {
    match link.loopback {
        true => Err(KernelError::LoopbackParent {
            driver: plan.driver,
        }),
        false => Ok(link),
    }
}

/// Removes a network's link if we created it. From somebody else's link, removes the addresses that
/// we added.
pub(super) fn remove_link(batches: &mut Batches, plan: &HostLink) -> Result<(), KernelError> {
    let Some(name) = plan.name() else {
        return Ok(());
    };
    let Some(link) = batches.find_link(name)? else {
        return Ok(());
    };
    let alias = match plan {
        HostLink::Bridge(plan) => plan.alias.as_str(),
        HostLink::Parent(plan) => plan.alias.as_str(),
        HostLink::Nothing => return Ok(()),
    };
    if link.alias.as_deref() == Some(alias) {
        return Ok(batches.run(&[remove(link.index)], None)?);
    }
    let addresses = batches.addresses()?;
    let ours = addresses
        .iter()
        .filter(|address| address.link == link.index && address.protocol == PROTOCOL);
    let requests: Vec<_> = ours
        .map(|address| Request::RemoveAddress {
            link: link.index,
            prefix: address.prefix,
        })
        .collect();
    Ok(batches.run(&requests, None)?)
}

/// Removes links of ours whose network or endpoint no longer exists. Returns their names.
pub(super) fn sweep(
    batches: &mut Batches,
    owner: &Owner,
    networks: &[String],
    host_links: Option<&[String]>,
) -> Result<Vec<String>, KernelError> {
    let dead = |link: &Link| {
        let alias = link.alias.as_deref();
        let endpoint = owner.endpoint_of(alias).is_some()
            && host_links.is_some_and(|known| !known.contains(&link.name));
        let network = owner
            .network_of(alias)
            .is_some_and(|id| !networks.iter().any(|network| network == id));
        endpoint || network
    };
    let links: Vec<_> = batches.links()?.into_iter().filter(dead).collect();
    let requests: Vec<_> = links.iter().map(|link| remove(link.index)).collect();
    batches.run(&requests, None)?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

/// Explains which module is missing if the kernel does not support a kind of links.
pub(super) fn no_kind(error: NetlinkError, kind: &VirtualKind, link: &str) -> KernelError {
    const EOPNOTSUPP: i32 = 95;
    if error.errno() != Some(EOPNOTSUPP) {
        return error.into();
    }
    let (kind, module) = match kind {
        VirtualKind::Vlan { .. } => ("802.1q VLANs", "8021q"),
        other => (other.as_str(), other.as_str()),
    };
    KernelError::NoKind {
        link: link.to_owned(),
        kind,
        module,
    }
}
