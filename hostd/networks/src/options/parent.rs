//! Options of the drivers `macvlan` and `ipvlan`, whose networks use a link of the host.

use super::values::{Reader, WrongValue, check_link_name};
use crate::types::{IpvlanFlag, IpvlanMode, MacvlanMode, Parent, ParentLink};

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
pub(super) const MTU: &str = "com.docker.network.driver.mtu";

/// The smallest MTU for IPv4 (RFC 791), and the largest MTU of a bridge.
const SMALLEST_MTU: u32 = 68;
const LARGEST_MTU: u32 = 65535;
/// Valid VLAN identifiers (IEEE 802.1Q).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

pub(super) fn macvlan(reader: &mut Reader<'_>) -> Parent<MacvlanMode> {
    let mode = match reader.text(MACVLAN_MODE).unwrap_or_default() {
        "" | "bridge" => MacvlanMode::Bridge,
        "private" => MacvlanMode::Private,
        "vepa" => MacvlanMode::Vepa,
        "passthru" => MacvlanMode::Passthru,
        other => {
            reader.conflict(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default ({MACVLAN_MODE}: use bridge, private, vepa or passthru)"
            ));
            MacvlanMode::Bridge
        }
    };
    Parent {
        link: parent("macvlan", reader),
        mode,
        mtu: mtu(reader),
    }
}

pub(super) fn ipvlan(reader: &mut Reader<'_>) -> Parent<IpvlanMode> {
    let flag = match reader.text(IPVLAN_FLAG).unwrap_or_default() {
        "" | "bridge" => IpvlanFlag::Bridge,
        "private" => IpvlanFlag::Private,
        "vepa" => IpvlanFlag::Vepa,
        other => {
            reader.conflict(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default ({IPVLAN_FLAG}: use bridge, private or vepa)"
            ));
            IpvlanFlag::Bridge
        }
    };
    let mode = match reader.text(IPVLAN_MODE).unwrap_or_default() {
        "" | "l2" => IpvlanMode::L2(flag),
        "l3" => IpvlanMode::L3(flag),
        "l3s" => IpvlanMode::L3S(flag),
        other => {
            reader.conflict(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default ({IPVLAN_MODE}: use l2, l3 or l3s)"
            ));
            IpvlanMode::L2(flag)
        }
    };
    Parent {
        link: parent("ipvlan", reader),
        mode,
        mtu: mtu(reader),
    }
}

/// Parses the parent link. Without one, the network uses a dummy link.
fn parent(driver: &str, reader: &mut Reader<'_>) -> Option<ParentLink> {
    if reader.text(PARENT).is_some_and(str::is_empty) {
        return None;
    }
    if reader.text(PARENT) == Some("lo") {
        reader.conflict(format!(
            "loopback interface is not a valid {driver} parent link"
        ));
        return None;
    }
    let name = reader.value(PARENT, |name| {
        check_link_name(name).map(|()| name.to_owned())
    })?;
    let vlan = name.rsplit_once('.').and_then(|(link, number)| {
        let number = number.parse().ok();
        let number = number.filter(|number| VLANS.contains(number))?;
        (!link.is_empty()).then(|| (link.to_owned(), number))
    });
    Some(ParentLink { name, vlan })
}

/// Parses an MTU in bytes; 0: the default.
pub(super) fn mtu(reader: &mut Reader<'_>) -> Option<u32> {
    let read = |value: &str| match value.parse() {
        Ok(0) => Ok(None),
        Ok(bytes) if (SMALLEST_MTU..=LARGEST_MTU).contains(&bytes) => Ok(Some(bytes)),
        _ => Err(WrongValue::Mtu {
            smallest: SMALLEST_MTU,
            largest: LARGEST_MTU,
        }),
    };
    reader.value(MTU, read).flatten()
}
