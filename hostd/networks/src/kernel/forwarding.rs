//! Forwarding between the links of the host.

use keelson_netlink::Batches;
use tracing::debug;

use super::KernelError;
use super::marks::Owner;
use super::settings::Setting;

/// Whether forwarding of a family is off, in the namespace of the calling thread. `false` if the
/// kernel lacks the family.
pub(super) fn is_off(ipv6: bool) -> bool {
    setting(ipv6).current().as_deref() == Some("0")
}

/// Switches on forwarding of a family, in the namespace of the calling thread. This makes the host
/// a router, so the packet filter must already drop packets that should not be forwarded.
pub(super) fn enable(batches: &mut Batches, owner: &Owner, ipv6: bool) -> Result<(), KernelError> {
    if !is_off(ipv6) {
        return Ok(());
    }
    if ipv6 {
        keep_advertisements(batches, owner)?;
    }
    setting(ipv6).apply()
}

/// A router ignores router advertisements, unless a link's `accept_ra` is 2. Without this the host
/// would later lose its default route, because it is not renewed. A value of 0 is kept.
fn keep_advertisements(batches: &mut Batches, owner: &Owner) -> Result<(), KernelError> {
    for link in batches.links()? {
        let alias = link.alias.as_deref();
        let ours = owner.network_of(alias).is_some() || owner.endpoint_of(alias).is_some();
        if ours || link.loopback {
            continue;
        }
        let setting = Setting::of_link(true, &link.name, "accept_ra", 2);
        if setting.current().as_deref() == Some("1") {
            debug!(link = link.name, "routers' advertisements are still taken");
            setting.apply()?;
        }
    }
    Ok(())
}

fn setting(ipv6: bool) -> Setting {
    let name: &[&str] = match ipv6 {
        false => &["net", "ipv4", "ip_forward"],
        true => &["net", "ipv6", "conf", "all", "forwarding"],
    };
    Setting {
        name: name.iter().map(|part| (*part).to_owned()).collect(),
        value: "1".to_owned(),
        optional: true,
    }
}
