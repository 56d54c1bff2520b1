//! Lists of what there is none of: volumes live and end with their containers, and plugins cannot
//! be installed.

use http::{Response, StatusCode};
use serde_json::json;

use crate::Call;
use crate::error::ApiError;
use crate::reply::{self, Body};

/// `GET /volumes`.
pub(crate) fn volumes(call: &Call) -> Result<Response<Body>, ApiError> {
    let filters = call
        .query
        .filters(&["dangling", "driver", "label", "name"])?;
    filters.flag("dangling")?;
    Ok(reply::json(
        StatusCode::OK,
        &json!({"Volumes": [], "Warnings": null}),
    ))
}

/// `GET /plugins`.
pub(crate) fn plugins(call: &Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(&["capability", "enabled"])?;
    filters.flag("enabled")?;
    Ok(reply::json(StatusCode::OK, &json!([])))
}
