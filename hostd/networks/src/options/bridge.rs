//! Options of the driver `bridge`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Asked;
use super::parent::MTU;
use super::values::{LONGEST_NAME, Reader, WrongValue, check_link_name};
use crate::settings::DefaultBridge;
use crate::types::{Bridge, GatewayMode};

const NAME: &str = "com.docker.network.bridge.name";
const INTER_CONTAINER: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
const MODE_IPV4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_IPV6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const HOST_IPV4: &str = "com.docker.network.host_ipv4";
const HOST_IPV6: &str = "com.docker.network.host_ipv6";

/// Option: whether it is the default bridge network.
pub(super) const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";

/// Room for the number after the prefix of an interface's name, in digits.
const NUMBER_WIDTH: usize = 3;

pub(super) fn read(asked: Asked<'_>, reader: &mut Reader<'_>) -> Bridge {
    let digits = asked.id.get(..12).unwrap_or(asked.id);
    let given = reader.text(NAME).is_some_and(|name| !name.is_empty());
    let link = match given {
        true => reader.value(NAME, |name| {
            check_link_name(name)?;
            match name {
                "lo" => Err(WrongValue::Loopback),
                name => Ok(name.to_owned()),
            }
        }),
        false => None,
    };
    if reader.flag(DEFAULT_BRIDGE, false) && !asked.of_engine {
        reader.conflict(format!(
            "{DEFAULT_BRIDGE}: only the network bridge, which every engine has, is the default one"
        ));
    }
    let usual = Bridge::new(link.unwrap_or_else(|| format!("br-{digits}")));
    let bridge = Bridge {
        inter_container: reader.flag(INTER_CONTAINER, usual.inter_container),
        masquerade: reader.flag(MASQUERADE, usual.masquerade),
        source_ipv4: reader.address::<Ipv4>(HOST_IPV4).map(|one| one.0),
        source_ipv6: reader.address::<Ipv6>(HOST_IPV6).map(|one| one.0),
        default_binding: reader.address::<IpAddr>(BINDING),
        mode_ipv4: reader.value(MODE_IPV4, mode).unwrap_or(usual.mode_ipv4),
        mode_ipv6: reader.value(MODE_IPV6, mode).unwrap_or(usual.mode_ipv6),
        mtu: super::parent::mtu(reader),
        interface_prefix: reader
            .value(INTERFACE_PREFIX, interface_prefix)
            .unwrap_or_else(|| usual.interface_prefix.clone()),
        inhibit_ipv4: reader.flag(INHIBIT, usual.inhibit_ipv4),
        trusted: reader.value(TRUSTED, trusted).unwrap_or_default(),
        link: usual.link,
    };
    let isolated = [bridge.mode_ipv4, bridge.mode_ipv6].contains(&GatewayMode::Isolated);
    if isolated && !asked.internal {
        reader.conflict("gateway mode 'isolated' can only be used for an internal network");
    }
    bridge
}

/// The options of the default bridge network. Clients see them, and [`read`] checks them like those
/// of other networks.
pub(crate) fn of_default_bridge(bridge: &DefaultBridge) -> BTreeMap<String, String> {
    let binding = bridge
        .publish_address
        .unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let mut options = BTreeMap::from([
        (DEFAULT_BRIDGE, true.to_string()),
        (NAME, bridge.link.clone()),
        (INTER_CONTAINER, bridge.inter_container.to_string()),
        (MASQUERADE, bridge.masquerade.to_string()),
        (BINDING, binding.to_string()),
    ]);
    options.extend(bridge.mtu.map(|bytes| (MTU, bytes.to_string())));
    let options = options.into_iter();
    options
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn mode(value: &str) -> Result<GatewayMode, WrongValue> {
    match value {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(WrongValue::GatewayMode(value.to_owned())),
    }
}

/// A prefix to which numbers are added.
fn interface_prefix(value: &str) -> Result<String, WrongValue> {
    check_link_name(value)?;
    match value.len() + NUMBER_WIDTH <= LONGEST_NAME {
        true => Ok(value.to_owned()),
        false => Err(WrongValue::LongPrefix(LONGEST_NAME - NUMBER_WIDTH)),
    }
}

fn trusted(value: &str) -> Result<Vec<String>, WrongValue> {
    let names = value.split(':').filter(|name| !name.is_empty());
    let names = names.map(|name| check_link_name(name).map(|()| name.to_owned()));
    names.collect()
}

/// An address of one family only.
struct Ipv4(Ipv4Addr);
struct Ipv6(Ipv6Addr);

impl TryFrom<IpAddr> for Ipv4 {
    type Error = ();

    fn try_from(address: IpAddr) -> Result<Self, ()> {
        match address {
            IpAddr::V4(address) => Ok(Self(address)),
            IpAddr::V6(_) => Err(()),
        }
    }
}

impl TryFrom<IpAddr> for Ipv6 {
    type Error = ();

    fn try_from(address: IpAddr) -> Result<Self, ()> {
        match address {
            IpAddr::V6(address) => Ok(Self(address)),
            IpAddr::V4(_) => Err(()),
        }
    }
}
