//! `POST /networks/{id}/connect` and `POST /networks/{id}/disconnect`.

use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::spec::ConnectionSpec;
use serde::Deserialize;

use crate::error::ApiError;
use crate::reply::{self, Body};
use crate::request::endpoints::connection;
use crate::version::ApiVersion;
use crate::wire::EndpointSettings;
use crate::{Api, Call, MAX_DOCUMENT};

/// The body of a request to connect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Connect {
    container: String,
    endpoint_config: Option<EndpointSettings>,
}

/// The body of a request to disconnect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Disconnect {
    container: String,
    force: bool,
}

/// `POST /networks/{id}/connect`.
pub(crate) async fn connect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let (term, version) = (call.name, call.version);
    let body: Connect = body(reply::read_json(call.request, MAX_DOCUMENT).await?)?;
    // A container that does not run may name a network that does not exist yet.
    let network = match api.0.engine.networks().find(&term) {
        Ok(network) => network.name.clone(),
        Err(_) => term,
    };
    let (container, wanted) = read_connect(&network, body, version)?;
    api.containers().connect(&container, wanted).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /networks/{id}/disconnect`.
pub(crate) async fn disconnect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let term = call.name;
    let body: Disconnect = body(reply::read_json(call.request, MAX_DOCUMENT).await?)?;
    check_name(&body.container)?;
    match api.containers().disconnect(&body.container, &term).await {
        // The container is gone, with its connections.
        Err(error) if body.force && error.kind() == ErrorKind::NotFound => {
            api.0.engine.networks().find(&term)?;
        }
        other => other?,
    }
    Ok(reply::empty(StatusCode::OK))
}

fn body<T>(document: Option<T>) -> Result<T, ApiError> {
    document.ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))
}

fn check_name(container: &str) -> Result<(), ApiError> {
    match container.is_empty() {
        true => Err(ApiError::invalid("No container name or ID supplied")),
        false => Ok(()),
    }
}

/// Parses a body of a version of the API: the container and the requested connection.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn read_connect(
    network: &str,
    body: Connect,
    version: ApiVersion,
) -> Result<(String, ConnectionSpec), ApiError> {
    check_name(&body.container)?;
    let mut settings = body.endpoint_config.unwrap_or_default();
    // Older versions don't have these members. In between, Docker ignores the hardware address,
    // which no client can want.
    if version < ApiVersion::new(1, 44) {
        settings.mac_address.clear();
    }
    if version < ApiVersion::new(1, 48) {
        settings.gw_priority = 0;
    }
    Ok((body.container, connection(network, &settings)?))
}
