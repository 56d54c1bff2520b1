//! `POST /networks/create`.

use std::collections::BTreeMap;

use hostd_networks::{Addressing, AskedSubnet, NewNetwork};
use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::json::Json;
use serde::Deserialize;
use serde_json::json;

use super::SCOPE;
use crate::error::ApiError;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, MAX_DOCUMENT};

/// The body. `CheckDuplicate` has no effect: two networks never have the same name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateNetwork {
    name: String,
    driver: String,
    scope: String,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Option<Ipam>,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Option<ConfigFrom>,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

/// Address management.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Ipam {
    driver: String,
    options: Option<BTreeMap<String, String>>,
    config: Option<Vec<IpamConfig>>,
}

/// A subnet.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct IpamConfig {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    auxiliary_addresses: BTreeMap<String, String>,
}

/// The network whose configuration is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

/// `POST /networks/create`.
pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let document = reply::read_document(call.request, MAX_DOCUMENT)
        .await?
        .ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    let new = read(document, call.version)?;
    let created = api.0.engine.networks().create(new).await?;
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": created.network.id, "Warning": created.warnings.join("; ")}),
    ))
}

/// Parses a body of a version of the API.
///
/// # Errors
/// The input is invalid, or requires a swarm.
pub(super) fn read(document: Json, version: ApiVersion) -> Result<NewNetwork, ApiError> {
    let asked = match document {
        Json::Null => CreateNetwork::default(),
        document => CreateNetwork::deserialize(document).map_err(reply::wrong_json)?,
    };
    refuse(&asked)?;
    let ipam = asked.ipam.unwrap_or_default();
    let subnets = ipam.config.unwrap_or_default().into_iter();
    let subnets = subnets.map(|one| AskedSubnet {
        subnet: one.subnet,
        range: one.ip_range,
        gateway: one.gateway,
        auxiliary: one.auxiliary_addresses,
    });
    Ok(NewNetwork {
        name: asked.name,
        driver: asked.driver,
        internal: asked.internal,
        attachable: asked.attachable,
        // Older versions don't have the member.
        ipv4: asked
            .enable_ipv4
            .filter(|_| version >= ApiVersion::new(1, 48)),
        ipv6: asked.enable_ipv6,
        addressing: Addressing {
            driver: ipam.driver,
            options: ipam.options,
            subnets: subnets.collect(),
        },
        options: asked.options,
        labels: asked.labels,
    })
}

/// Refuses options that need several machines.
fn refuse(asked: &CreateNetwork) -> Result<(), ApiError> {
    let forbidden = |words: &str| Err(ApiError::new(ErrorKind::Forbidden, words));
    if asked.ingress {
        return forbidden("Ingress network can only be global scope network");
    }
    match asked.scope.as_str() {
        "" | SCOPE => {}
        "swarm" => {
            return forbidden("cannot create a swarm scoped network when swarm is not active");
        }
        other => {
            return Err(ApiError::invalid(format!(
                "invalid scope {other:?}: {SCOPE:?} is the only one"
            )));
        }
    }
    if asked.config_only {
        return Err(ApiError::not_built(
            "ConfigOnly is not implemented (value true): such networks are for the nodes of a swarm",
        ));
    }
    match &asked.config_from {
        Some(from) if !from.network.is_empty() => Err(ApiError::new(
            ErrorKind::NotFound,
            format!("configuration network {:?} does not exist", from.network),
        )),
        _ => Ok(()),
    }
}
