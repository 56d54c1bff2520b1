//! `DELETE /networks/{id}` and `POST /networks/prune`.

use hostd_networks::Network;
use http::{Response, StatusCode};
use serde_json::json;

use crate::error::ApiError;
use crate::reply::{self, Body};
use crate::{Api, Call, times};

/// `DELETE /networks/{id}`.
pub(crate) async fn remove(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    api.0.engine.networks().remove(&call.name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /networks/prune`.
pub(crate) async fn prune(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(&["until", "label", "label!"])?;
    let until = times::until(&filters)?;
    let wanted = move |network: &Network| {
        until.is_none_or(|time| network.created <= time)
            && filters.labels(|key| network.labels.get(key).map(String::as_str))
    };
    let names = api.0.engine.networks().prune(wanted).await?;
    // Docker returns null for none.
    let deleted = (!names.is_empty()).then_some(names);
    Ok(reply::json(
        StatusCode::OK,
        &json!({"NetworksDeleted": deleted}),
    ))
}
