//! Parses the options of a network's driver from the texts that clients send.
//!
//! - `bridge`, `parent` (macvlan and ipvlan): the options of each driver.
//! - `values`: parses one value.

mod bridge;
mod parent;
mod values;

use std::collections::BTreeMap;

use crate::types::{Driver, GatewayMode, IpvlanMode};
use values::Reader;

pub(crate) use bridge::of_default_bridge;
pub use values::{OptionError, WrongValue};

/// Option: whether the network has IPv4, if the request does not say.
pub(crate) const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
/// Option: whether the network has IPv6, if the request does not say.
pub(crate) const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// The input of a network's driver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The network's identifier.
    pub(crate) id: &'a str,
    /// The driver; empty: `bridge`.
    pub(crate) driver: &'a str,
    /// Its options.
    pub(crate) options: &'a BTreeMap<String, String>,
    /// Whether an internal network was requested.
    pub(crate) internal: bool,
    /// Whether it is the default bridge network.
    pub(crate) of_engine: bool,
}

/// Parsed options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Understood {
    pub(crate) driver: Driver,
    /// Whether the network is internal, by request or as a consequence of options.
    pub(crate) internal: bool,
    /// The problems. A wrong value counts as not given.
    pub(crate) problems: Vec<OptionError>,
}

/// Parses options. As in Docker, the driver ignores options that it does not know.
///
/// # Errors
/// [`OptionError`]: there is no such driver. Problems of single options are in
/// [`Understood::problems`], because a network of an engine with other rules must keep working.
pub(crate) fn read(asked: Asked<'_>) -> Result<Understood, OptionError> {
    let mut reader = Reader::new(asked.options);
    let (driver, internal) = match asked.driver {
        "" | "bridge" => {
            let bridge = bridge::read(asked, &mut reader);
            (Driver::Bridge(bridge), asked.internal)
        }
        "macvlan" => {
            let parent = parent::macvlan(&mut reader);
            let internal = asked.internal || parent.link.is_none();
            (Driver::Macvlan(parent), internal)
        }
        "ipvlan" => {
            let parent = parent::ipvlan(&mut reader);
            let internal = asked.internal || parent.link.is_none();
            (Driver::Ipvlan(parent), internal)
        }
        other @ ("host" | "null") => return Err(OptionError::OnlyOne(other.to_owned())),
        "overlay" => return Err(OptionError::NoSwarm),
        other => return Err(OptionError::NoDriver(other.to_owned())),
    };
    Ok(Understood {
        driver,
        internal,
        problems: reader.problems(),
    })
}

/// Whether a network has IPv4 and IPv6: by the request, or an option, or Docker's default.
///
/// # Errors
/// An option's value is neither true nor false.
pub(crate) fn families(
    ipv4: Option<bool>,
    ipv6: Option<bool>,
    options: &BTreeMap<String, String>,
) -> Result<(bool, bool), OptionError> {
    let of_option = |name: &str| {
        let value = options.get(name);
        let value = value.map(|value| {
            let wrong = || OptionError::NotABool {
                name: name.to_owned(),
                value: value.clone(),
            };
            values::flag(value).ok_or_else(wrong)
        });
        value.transpose()
    };
    let ipv4 = match ipv4 {
        Some(said) => said,
        None => of_option(ENABLE_IPV4)?.unwrap_or(true),
    };
    let ipv6 = match ipv6 {
        Some(said) => said,
        None => of_option(ENABLE_IPV6)?.unwrap_or(false),
    };
    Ok((ipv4, ipv6))
}

/// Whether a network gets a gateway of a family without a request.
pub(crate) fn wants_gateway(driver: &Driver, internal: bool, ipv6: bool) -> bool {
    match driver {
        // An isolated bridge has no address. A bridge with `inhibit_ipv4` has no IPv4 address; if
        // its network is also internal, no container would use a gateway.
        Driver::Bridge(bridge) => {
            let inhibited = !ipv6 && bridge.inhibit_ipv4 && internal;
            bridge.mode(ipv6) != GatewayMode::Isolated && !inhibited
        }
        // The gateway is another machine; only the operator knows whether there is one.
        Driver::Macvlan(_) | Driver::Ipvlan(_) => false,
        Driver::Host | Driver::Nothing => false,
    }
}

/// Whether containers reach everything through the link itself, without a gateway.
pub(crate) const fn routes_by_device(driver: &Driver) -> bool {
    matches!(
        driver,
        Driver::Ipvlan(parent) if matches!(parent.mode, IpvlanMode::L3(_) | IpvlanMode::L3S(_))
    )
}

#[cfg(test)]
mod tests;
