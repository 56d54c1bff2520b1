//! `/containers/…`.

pub(crate) mod content;
pub(crate) mod create;
mod detach;
pub(crate) mod exec;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod streams;
mod versions;

use std::sync::Arc;

use hostd_containers::{MountPoint, Snapshot};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::{Api, Call};

/// Rows and columns of the query of a resize request.
fn terminal_size(call: &Call) -> Result<(u16, u16), ApiError> {
    let size = |name: &str| {
        call.query
            .number(name)?
            .ok_or_else(|| ApiError::invalid(format!("query parameter {name} is missing")))
    };
    Ok((size("h")?, size("w")?))
}

/// Name of the network that a container is connected to, or `None` when it shares another's.
fn network_name(snapshot: &Snapshot) -> Option<&str> {
    match snapshot.host_config.network_mode.as_str() {
        "" | "default" => Some("bridge"),
        mode if mode.starts_with("container:") => None,
        mode => Some(mode),
    }
}

/// `NetworkSettings.Networks`. The kinds of networks that exist assign no addresses.
fn networks(api: &Api, snapshot: &Snapshot) -> Value {
    let Some(name) = network_name(snapshot) else {
        return json!({});
    };
    let (network, end) = crate::networks::ids(api, snapshot, name);
    json!({name: {
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "MacAddress": "",
        "DriverOpts": null,
        "GwPriority": 0,
        "NetworkID": network,
        "EndpointID": end,
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    }})
}

/// Number and protocol of an exposed port: `80/tcp`.
fn port(text: &str) -> Option<(u16, &str)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some((number.parse().ok()?, protocol))
}

/// The ports on which a container that runs may be reached in its network. With the host's they are
/// the host's.
fn open_ports(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    let own = snapshot.state.status.has_process() && snapshot.host_config.network_mode != "host";
    let ports = own.then_some(&snapshot.config.exposed_ports);
    ports
        .into_iter()
        .flat_map(|ports| ports.keys().map(String::as_str))
}

/// A mount as list and inspect show it.
fn mount(mount: &MountPoint) -> Value {
    let mut value = json!({
        "Type": mount.kind,
        "Source": mount.source.display().to_string(),
        "Destination": mount.destination,
        "Mode": mount.mode,
        "RW": mount.writable,
        "Propagation": mount.propagation,
    });
    if mount.kind == "volume"
        && let Some(members) = value.as_object_mut()
    {
        members.insert("Name".to_owned(), json!(mount.name));
        members.insert("Driver".to_owned(), json!("local"));
    }
    value
}

/// Bytes that the container has written into its root file system, and the bytes of the whole.
///
/// # Errors
/// The container or its image can't be read; no size is made up for it.
pub(crate) async fn sizes(api: &Api, snapshot: &Arc<Snapshot>) -> Result<(u64, u64), ApiError> {
    let written = api.containers().written_bytes(&snapshot.id).await?;
    let image = api.0.images.resolve(&snapshot.image_id)?;
    Ok((written, image.size + written))
}
