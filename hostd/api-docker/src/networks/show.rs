//! A network in Docker's JSON.

use hostd_networks::{Endpoint, Network};
use keelson_model::ip::IpPrefix;
use serde_json::{Map, Value, json};

use super::{SCOPE, is_connected};
use crate::Api;
use crate::membership::endpoint_id;

/// A network with the containers in it.
pub(super) fn network(network: &Network, containers: Map<String, Value>) -> Value {
    let mut shown = json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created.to_string(),
        "Scope": SCOPE,
        "Driver": network.driver.as_str(),
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": match network.asked.driver.as_str() {
                "" => "default",
                driver => driver,
            },
            "Options": network.asked.options,
            "Config": config(network),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
    });
    if let (Some(reason), Some(members)) = (&network.unreadable, shown.as_object_mut()) {
        members.insert("Status".to_owned(), json!({"error": reason}));
    }
    shown
}

/// `IPAM.Config`: for each family the requested subnets or, without a request, the allocated ones.
/// Clients copy it into another request, where an allocated value must not become a requested one.
fn config(network: &Network) -> Vec<Value> {
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        let asked = network.asked.subnets.iter();
        let mut asked = asked
            .filter(|one| one.subnet.contains(':') == ipv6)
            .peekable();
        if asked.peek().is_none() {
            all.extend(network.subnets_of(ipv6).map(|subnet| {
                let gateway = subnet.gateway.map(|gateway| gateway.to_string());
                entry([
                    ("Subnet", json!(subnet.prefix.to_string())),
                    ("Gateway", json!(gateway.unwrap_or_default())),
                ])
            }));
            continue;
        }
        all.extend(asked.map(|one| {
            entry([
                ("Subnet", json!(one.subnet)),
                ("IPRange", json!(one.range)),
                ("Gateway", json!(one.gateway)),
                ("AuxiliaryAddresses", json!(one.auxiliary)),
            ])
        }));
    }
    all
}

/// Makes an object without the members that have no value.
fn entry<const N: usize>(members: [(&str, Value); N]) -> Value {
    let is_set = |value: &Value| match value {
        Value::String(text) => !text.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    let members = members.into_iter().filter(|(_, value)| is_set(value));
    let members = members.map(|(name, value)| (name.to_owned(), value));
    Value::Object(members.collect())
}

/// The running containers in a network, by their identifiers. The connection of a missing container
/// has the key `ep-` followed by its own identifier.
pub(super) fn containers(api: &Api, network: &Network) -> Map<String, Value> {
    let members = api.0.engine.networks().endpoints_in(&network.id);
    let members = members.into_iter().map(|member| {
        let key = match api.containers().inspect(&member.container) {
            Ok(_) => member.container,
            Err(_) => format!("ep-{}", member.endpoint.id),
        };
        (key, end(&member.name, &member.endpoint))
    });
    let mut all: Map<String, Value> = members.collect();
    if network.predefined && network.bridge().is_none() {
        let list = api.containers().list().into_iter();
        for container in list.filter(|container| is_connected(container, &network.name)) {
            all.entry(container.id.clone()).or_insert_with(|| {
                json!({
                    "Name": container.name,
                    "EndpointID": endpoint_id(&container),
                    "MacAddress": "",
                    "IPv4Address": "",
                    "IPv6Address": "",
                })
            });
        }
    }
    all
}

/// A connection. Here its addresses have their prefix length.
fn end(name: &str, endpoint: &Endpoint) -> Value {
    let address = |prefix: Option<IpPrefix>| prefix.map(|prefix| prefix.to_string());
    json!({
        "Name": name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac.map(|mac| mac_text(&mac)).unwrap_or_default(),
        "IPv4Address": address(endpoint.ipv4).unwrap_or_default(),
        "IPv6Address": address(endpoint.ipv6).unwrap_or_default(),
    })
}

/// `02:42:ac:11:00:02`.
pub(super) fn mac_text(mac: &[u8]) -> String {
    let bytes = mac.iter().map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().join(":")
}
