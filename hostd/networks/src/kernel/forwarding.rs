//! Forwarding between the links of the host.

use keelson_netlink::Batches;
use tracing::debug;

use super::KernelError;
use super::marks::Owner;
use super::settings::Setting;

/// What was switched on, and was off before. The host becomes a router by it, so whoever did it
/// also has to drop what is not meant to be forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// Forwarding of IPv4.
    pub(crate) ipv4: bool,
    /// Forwarding of IPv6.
    pub(crate) ipv6: bool,
}

/// Switches forwarding on, in the namespace of the calling thread, for the families that are
/// wanted.
pub(super) fn enable(
    batches: &mut Batches,
    owner: &Owner,
    wanted: Forwarding,
) -> Result<Forwarding, KernelError> {
    let mut enabled = Forwarding::default();
    if wanted.ipv4 {
        let setting = setting(&["net", "ipv4", "ip_forward"]);
        if setting.current().as_deref() == Some("0") {
            setting.apply()?;
            enabled.ipv4 = true;
        }
    }
    if wanted.ipv6 {
        let setting = setting(&["net", "ipv6", "conf", "all", "forwarding"]);
        if setting.current().as_deref() == Some("0") {
            keep_advertisements(batches, owner)?;
            setting.apply()?;
            enabled.ipv6 = true;
        }
    }
    Ok(enabled)
}

/// A router ignores the advertisements of others, unless a link's `accept_ra` is 2: the host would
/// lose its default route some time later, when that is not renewed. What is 0 stays 0.
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

fn setting(name: &[&str]) -> Setting {
    Setting {
        name: name.iter().map(|part| (*part).to_owned()).collect(),
        value: "1".to_owned(),
        optional: true,
    }
}
