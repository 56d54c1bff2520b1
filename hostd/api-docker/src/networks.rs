//! The two networks that always exist: `host` (the host's own) and `none` (only loopback). Others can't
//! be made yet.

use hostd_containers::Snapshot;
use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::spec::NetworkMode;
use keelson_oci::digest::Digest;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::query::{Filters, Patterns};
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, times};

/// Filters of the list.
const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

/// A network that is always there.
struct Network {
    name: &'static str,
    driver: &'static str,
    ipv4: bool,
}

const NETWORKS: &[Network] = &[
    Network {
        name: "host",
        driver: "host",
        ipv4: true,
    },
    Network {
        name: "none",
        driver: "null",
        ipv4: false,
    },
];

/// The drivers that networks may have, for `GET /info`.
pub(crate) fn drivers() -> Vec<&'static str> {
    NETWORKS.iter().map(|network| network.driver).collect()
}

impl Network {
    /// 64 hexadecimal digits that stay as long as the engine keeps its own identifier.
    fn id(&self, api: &Api) -> String {
        Digest::of(format!("network {} of {}", self.name, api.0.facts.id).as_bytes()).hex()
    }

    fn containers(&self, api: &Api) -> Map<String, Value> {
        let all = api.containers().list().into_iter();
        all.filter(|container| is_connected(container, self.name))
            .map(|container| {
                let end = json!({
                    "Name": container.name,
                    "EndpointID": endpoint_id(&container),
                    "MacAddress": "",
                    "IPv4Address": "",
                    "IPv6Address": "",
                });
                (container.id.clone(), end)
            })
            .collect()
    }

    fn fits(&self, api: &Api, filters: &Filters, dangling: Option<bool>) -> bool {
        let id = self.id(api);
        // Networks that can't be removed count as in use.
        dangling != Some(true)
            && filters.any("driver", |wanted| wanted == self.driver)
            && Patterns::new(filters.values("id")).fit(&id)
            && Patterns::new(filters.values("name")).fit(self.name)
            && filters.any("scope", |wanted| wanted == "local")
            && filters.any("type", |wanted| wanted == "builtin")
            && filters.labels(|_| None)
    }

    fn render(&self, api: &Api, containers: Map<String, Value>) -> Value {
        json!({
            "Name": self.name,
            "Id": self.id(api),
            "Created": times::NEVER,
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv4": self.ipv4,
            "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": null, "Config": []},
            "Internal": false,
            "Attachable": false,
            "Ingress": false,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": false,
            "Containers": containers,
            "Options": {},
            "Labels": {},
        })
    }
}

fn is_connected(container: &Snapshot, network: &str) -> bool {
    container.state.status.counts_as_running() && network_name(container) == network
}

fn endpoint_id(container: &Snapshot) -> String {
    let network = network_name(container);
    Digest::of(format!("{} in {network}", container.id).as_bytes()).hex()
}

/// Identifiers of a container's network and of its end point. Empty when there is none.
pub(crate) fn ids(api: &Api, container: &Snapshot, name: &str) -> (String, String) {
    let network = NETWORKS.iter().find(|network| network.name == name);
    let end = match network.is_some() && is_connected(container, name) {
        true => endpoint_id(container),
        false => String::new(),
    };
    (
        network.map(|network| network.id(api)).unwrap_or_default(),
        end,
    )
}

/// `GET /networks`.
pub(crate) async fn list(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(FILTERS)?;
    let dangling = filters.flag("dangling")?;
    for kind in filters.values("type") {
        if !matches!(kind.as_str(), "builtin" | "custom") {
            return Err(ApiError::invalid(format!("invalid filter 'type={kind}'")));
        }
    }
    let old = call.version < ApiVersion::new(1, 28);
    let list: Vec<Value> = NETWORKS
        .iter()
        .filter(|network| network.fits(api, &filters, dangling))
        .map(|network| {
            let containers = old.then(|| network.containers(api));
            network.render(api, containers.unwrap_or_default())
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &list))
}

/// `GET /networks/{id}`, by name, identifier or the beginning of one.
pub(crate) async fn inspect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let name = call.name.as_str();
    let local = call.query.get("scope").is_none_or(|scope| scope == "local");
    let found = NETWORKS
        .iter()
        .find(|network| network.name == name)
        .or_else(|| {
            NETWORKS
                .iter()
                .find(|network| network.id(api).starts_with(name))
        })
        .filter(|_| local);
    match found {
        Some(network) => Ok(reply::json(
            StatusCode::OK,
            &network.render(api, network.containers(api)),
        )),
        None => Err(ApiError::new(
            ErrorKind::NotFound,
            format!("network {name} not found"),
        )),
    }
}

/// Name of the network that a container is connected to; empty for one that joins another one's.
pub(crate) fn network_name(snapshot: &Snapshot) -> &'static str {
    if snapshot.spec.namespaces.donors.network.is_some() {
        return "";
    }
    match snapshot.spec.namespaces.network {
        NetworkMode::Bridge => "bridge",
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
    }
}
