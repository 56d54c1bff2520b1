//! Refuses, by name, options that Keelson does not have. They pass when they have the value that clients
//! send for "not given".

use serde_json::Value;

use super::namespaces::donor;
use crate::error::ApiError;
use crate::wire::{Config, EndpointSettings, HostConfig};

/// Whether a JSON value is what clients send for "not given".
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.values().all(is_unset),
    }
}

/// Names the first option that was given and is not implemented.
fn refuse(options: &[(&str, bool, &dyn std::fmt::Debug)]) -> Result<(), ApiError> {
    match options.iter().find(|(_, given, _)| *given) {
        Some((name, _, value)) => Err(ApiError::not_built(format!(
            "{name} is not implemented (value {value:?})"
        ))),
        None => Ok(()),
    }
}

pub(super) fn any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

pub(super) fn refuse_config(config: &Config) -> Result<(), ApiError> {
    refuse(&[(
        "MacAddress",
        !config.mac_address.is_empty(),
        &config.mac_address,
    )])
}

pub(super) fn refuse_host(host: &HostConfig) -> Result<(), ApiError> {
    refuse(&[
        (
            "PortBindings",
            !host.port_bindings.is_empty(),
            &host.port_bindings.keys(),
        ),
        ("PublishAllPorts", host.publish_all_ports, &true),
        ("Cgroup", !host.cgroup.is_empty(), &host.cgroup),
        ("Links", any(&host.links), &host.links),
        (
            "NetworkMode",
            !matches!(
                host.network_mode.as_str(),
                "" | "default" | "bridge" | "none" | "host"
            ) && donor(&host.network_mode).is_none(),
            &host.network_mode,
        ),
    ])?;
    for entry in host.extra_hosts.iter().flatten() {
        if entry.ends_with("host-gateway") {
            return Err(ApiError::not_built(format!(
                "host-gateway is not implemented (ExtraHosts {entry:?})"
            )));
        }
    }
    Ok(())
}

/// Settings of a container's connection to a network.
pub(super) fn refuse_endpoint(name: &str, settings: &EndpointSettings) -> Result<(), ApiError> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let place = |member: &str| format!("NetworkingConfig.EndpointsConfig[{name:?}].{member}");
    refuse(&[
        (
            &place("IPAMConfig.IPv4Address"),
            !ipam.ipv4_address.is_empty(),
            &ipam.ipv4_address,
        ),
        (
            &place("IPAMConfig.IPv6Address"),
            !ipam.ipv6_address.is_empty(),
            &ipam.ipv6_address,
        ),
        (
            &place("IPAMConfig.LinkLocalIPs"),
            any(&ipam.link_local_ips),
            &ipam.link_local_ips,
        ),
        (&place("Links"), any(&settings.links), &settings.links),
        (&place("Aliases"), any(&settings.aliases), &settings.aliases),
        (
            &place("MacAddress"),
            !settings.mac_address.is_empty(),
            &settings.mac_address,
        ),
        (
            &place("DriverOpts"),
            !settings.driver_opts.is_empty(),
            &settings.driver_opts,
        ),
        (
            &place("GwPriority"),
            settings.gw_priority != 0,
            &settings.gw_priority,
        ),
    ])
}
