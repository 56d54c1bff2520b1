//! Routes that are not built, and lists that are always empty: plugins can't be installed.

use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use serde_json::json;

use crate::error::ApiError;
use crate::reply::{self, Body};
use crate::{Api, Call, version};

/// `GET /plugins`.
pub(crate) async fn plugins(_: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(&["capability", "enabled"])?;
    filters.flag("enabled")?;
    Ok(reply::json(StatusCode::OK, &json!([])))
}

/// `GET /plugins/{name}/json`. `docker inspect NAME` looks the name up in every kind of object. It
/// continues after this answer, and would stop at any other.
pub(crate) async fn missing_plugin(_: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let message = format!("plugin \"{}\" not found", call.name);
    Err(ApiError::new(ErrorKind::NotFound, message))
}

/// Every route for members of a swarm. Clients that look for a swarm understand by this answer that
/// there is none.
pub(crate) async fn no_swarm(_: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let message = "This node is not a swarm manager. Swarms are not built; use Compose instead";
    Err(unavailable(call, message))
}

/// `POST /swarm/leave`. Clients that leave a swarm to be sure understand this answer.
pub(crate) async fn leave_swarm(_: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    Err(unavailable(call, "This node is not part of a swarm"))
}

fn unavailable(call: Call, message: &str) -> ApiError {
    reply::drain(reply::reader(call.request.into_body()));
    ApiError::new(ErrorKind::Unavailable, message)
}

/// Every route that is not built.
pub(crate) async fn not_built(_: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let path = call.request.uri().path();
    let path = version::split(path).map_or(path, |(_, rest)| rest);
    let error = ApiError::not_built(format!("{} {path} is not built yet", call.request.method()));
    // Reads the rest of the request, so that the client can read this answer.
    reply::drain(reply::reader(call.request.into_body()));
    Err(error)
}
