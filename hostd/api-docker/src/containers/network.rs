//! A container's networks and ports, as clients see them.

use std::collections::BTreeMap;

use hostd_containers::Snapshot;
use hostd_networks::{Binding, Endpoint};
use keelson_model::spec::{ConnectionSpec, Mac, NetworkMode, Port};
use keelson_oci::digest::Digest;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::Api;
use crate::membership::{endpoint_id, names};
use crate::version::ApiVersion;

/// `NetworkSettings.Networks`: a container's endpoints by the names of their networks.
pub(crate) type Networks = BTreeMap<String, EndPoint>;

/// A container's connection to a network.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndPoint {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<IpamConfig>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    mac_address: String,
    driver_opts: Option<BTreeMap<String, String>>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames", skip_serializing_if = "Option::is_none")]
    dns_names: Option<Option<Vec<String>>>,
}

/// The requested addresses.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IpamConfig {
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
    link_local_ips: Vec<String>,
}

/// A container's endpoints.
pub(crate) fn endpoints(api: &Api, container: &Snapshot, version: ApiVersion) -> Networks {
    let running = api.0.engine.networks().run_of(&container.id);
    let plain = ConnectionSpec::default();
    names(container)
        .into_iter()
        .map(|name| {
            let network = api.0.engine.networks().find(&name).ok();
            let asked = container.spec.connections.iter().flatten();
            let asked = asked.into_iter().find(|asked| asked.network == name);
            let id = network.as_ref().map(|network| network.id.clone());
            let endpoint = running.endpoints.iter();
            let endpoint = endpoint
                .into_iter()
                .find(|one| Some(&one.network) == id.as_ref());
            let shown = network.map_or(name, |network| network.name.clone());
            let end = EndPoint::of(
                container,
                (&shown, id.unwrap_or_default()),
                asked.unwrap_or(&plain),
                endpoint,
                version,
            );
            (shown, end)
        })
        .collect()
}

impl EndPoint {
    fn of(
        container: &Snapshot,
        (name, network_id): (&str, String),
        asked: &ConnectionSpec,
        endpoint: Option<&Endpoint>,
        version: ApiVersion,
    ) -> Self {
        let text = |address: Option<String>| address.unwrap_or_default();
        let ipam = IpamConfig {
            ipv4_address: text(asked.ipv4.map(|address| address.to_string())),
            ipv6_address: text(asked.ipv6.map(|address| address.to_string())),
            link_local_ips: asked.link_local.iter().map(ToString::to_string).collect(),
        };
        let links = asked.links.iter();
        let links: Vec<_> = links
            .map(|link| format!("{}:{}", link.container, link.alias))
            .collect();
        let named = has_names(name).then(|| dns_names(container, asked));
        let mut aliases = asked.aliases.clone();
        if version < ApiVersion::new(1, 45) && has_names(name) {
            let own = short(&container.id).to_owned();
            if !aliases.contains(&own) {
                aliases.push(own);
            }
        }
        let prefix = |prefix: Option<keelson_model::ip::IpPrefix>| match prefix {
            Some(prefix) => (prefix.address.to_string(), prefix.length),
            None => (String::new(), 0),
        };
        let (ip_address, ip_prefix_len) = prefix(endpoint.and_then(|one| one.ipv4));
        let (global_ipv6_address, global_ipv6_prefix_len) =
            prefix(endpoint.and_then(|one| one.ipv6));
        let mac = endpoint.and_then(|one| one.mac).or(asked.mac);
        Self {
            ipam_config: (ipam != IpamConfig::default()).then_some(ipam),
            links: (!links.is_empty()).then_some(links),
            aliases: (!aliases.is_empty()).then_some(aliases),
            mac_address: text(mac.map(shown_mac)),
            driver_opts: driver_options(asked),
            gw_priority: asked.gateway_priority,
            network_id,
            endpoint_id: match endpoint {
                Some(endpoint) => endpoint.id.clone(),
                None if has_own_end(container) => endpoint_id(container),
                None => String::new(),
            },
            gateway: text(endpoint.and_then(|one| Some(one.gateway_ipv4?.to_string()))),
            ip_address,
            ip_prefix_len,
            ipv6_gateway: text(endpoint.and_then(|one| Some(one.gateway_ipv6?.to_string()))),
            global_ipv6_address,
            global_ipv6_prefix_len,
            dns_names: (version >= ApiVersion::new(1, 44)).then_some(named),
        }
    }
}

/// `02:42:ac:11:00:02`.
pub(crate) fn shown_mac(mac: Mac) -> String {
    let bytes = mac.map(|byte| format!("{byte:02x}"));
    bytes.join(":")
}

/// Whether a network has names of containers.
fn has_names(network: &str) -> bool {
    !matches!(network, "bridge" | "host" | "none")
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The names of a container in a network.
fn dns_names(container: &Snapshot, asked: &ConnectionSpec) -> Vec<String> {
    let mut names = vec![container.name.clone()];
    let further = asked.aliases.iter().cloned();
    let own = [short(&container.id).to_owned(), container.host_name()];
    for name in further.chain(own) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn driver_options(asked: &ConnectionSpec) -> Option<BTreeMap<String, String>> {
    let mut options = asked.options.clone();
    if let Some(interface) = &asked.interface {
        options.insert(
            "com.docker.network.endpoint.ifname".to_owned(),
            interface.clone(),
        );
    }
    if !asked.sysctls.is_empty() {
        let all = asked.sysctls.iter();
        let all: Vec<_> = all.map(|(name, value)| format!("{name}={value}")).collect();
        options.insert(
            "com.docker.network.endpoint.sysctls".to_owned(),
            all.join(","),
        );
    }
    (!options.is_empty()).then_some(options)
}

/// Whether a container is in the network `host` or `none`, where its endpoint exists in name only.
fn has_own_end(container: &Snapshot) -> bool {
    container.state.status.counts_as_running()
        && container.spec.namespaces.network != NetworkMode::Bridge
}

/// `80/tcp`.
fn port_name(port: &Port) -> String {
    format!("{}/{}", port.number, port.protocol.as_str())
}

/// The ports on which a running container can be reached in its network. In the host's network they
/// are ports of the host.
pub(crate) fn open_ports(container: &Snapshot) -> impl Iterator<Item = &Port> {
    let own = container.state.status.has_process()
        && container.spec.namespaces.network != NetworkMode::Host;
    own.then_some(&container.spec.exposed_ports)
        .into_iter()
        .flatten()
}

/// `NetworkSettings` of an inspected container.
pub(crate) fn settings(api: &Api, container: &Snapshot, version: ApiVersion) -> Value {
    let running = api.0.engine.networks().run_of(&container.id);
    let endpoints = endpoints(api, container, version);
    let pid = container.state.pid;
    let own = pid > 0 && container.spec.namespaces.donors.network.is_none();
    let key = own.then(|| format!("/proc/{pid}/ns/net"));
    let sandbox = own.then(|| Digest::of(container.id.as_bytes()).hex());
    // Older clients know only one network.
    let none = EndPoint::default();
    let main = endpoints.get("bridge").unwrap_or(&none);
    json!({
        "Bridge": "",
        "SandboxID": sandbox.unwrap_or_default(),
        "SandboxKey": key.unwrap_or_default(),
        "Ports": bound_ports(container, &running.bindings),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": main.endpoint_id,
        "Gateway": main.gateway,
        "GlobalIPv6Address": main.global_ipv6_address,
        "GlobalIPv6PrefixLen": main.global_ipv6_prefix_len,
        "IPAddress": main.ip_address,
        "IPPrefixLen": main.ip_prefix_len,
        "IPv6Gateway": main.ipv6_gateway,
        "MacAddress": main.mac_address,
        "Networks": endpoints,
    })
}

/// The ports of a running container, each with its bindings.
pub(crate) fn bound_ports(container: &Snapshot, bindings: &[Binding]) -> Map<String, Value> {
    open_ports(container)
        .map(|port| {
            let bound: Vec<_> = bindings
                .iter()
                .filter(|binding| binding.port == *port)
                .map(|binding| {
                    json!({
                        "HostIp": binding.host.to_string(),
                        "HostPort": host_port(binding).map_or(String::new(), |port| port.to_string()),
                    })
                })
                .collect();
            let bound = match bound.is_empty() {
                true => Value::Null,
                false => Value::Array(bound),
            };
            (port_name(port), bound)
        })
        .collect()
}

/// The ports of a running container as the list shows them.
pub(crate) fn listed_ports(container: &Snapshot, bindings: &[Binding]) -> Vec<Value> {
    let mut list = Vec::new();
    for port in open_ports(container) {
        let bound = bindings.iter().filter(|binding| binding.port == *port);
        let before = list.len();
        for binding in bound {
            let Some(public) = host_port(binding) else {
                continue;
            };
            list.push(json!({
                "IP": binding.host.to_string(),
                "PrivatePort": port.number,
                "PublicPort": public,
                "Type": port.protocol.as_str(),
            }));
        }
        if list.len() == before {
            list.push(json!({"PrivatePort": port.number, "Type": port.protocol.as_str()}));
        }
    }
    list
}

/// The host's port; a routed network has none.
fn host_port(binding: &Binding) -> Option<u16> {
    (binding.host_port > 0).then_some(binding.host_port)
}
