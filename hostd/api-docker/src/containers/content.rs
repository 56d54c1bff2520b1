//! Changes, export and commit.

use std::io;

use futures::{StreamExt, TryStreamExt};
use hostd_containers::CommitRequest;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::request::shown;
use crate::wire::Config;
use crate::{Api, Call, MAX_DOCUMENT};

/// `GET /containers/{id}/changes`.
pub(crate) async fn changes(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let _place = api.place(Kind::Survey, call.role).await?;
    let changes = api.containers().changes(&call.name).await?;
    let list: Vec<Value> = changes
        .into_iter()
        .map(|change| {
            json!({
                "Path": String::from_utf8_lossy(&change.path),
                "Kind": change.kind as u8,
            })
        })
        .collect();
    // Docker says null for none.
    let answer = (!list.is_empty()).then_some(list);
    Ok(reply::json(StatusCode::OK, &answer))
}

/// `GET /containers/{id}/export`.
pub(crate) async fn export(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let place = api.place(Kind::Export, call.role).await?;
    let pieces = api.containers().export(&call.name, Box::new(place)).await?;
    let pieces = pieces
        .map(|piece| piece.map_err(io::Error::other))
        .inspect_err(|error| tracing::warn!(%error, "a container was not exported to the end"));
    Ok(reply::try_stream("application/octet-stream", pieces))
}

/// `POST /commit`.
pub(crate) async fn commit(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let text = |name: &str| call.query.get(name).unwrap_or_default().to_owned();
    let container = text("container");
    if container.is_empty() {
        return Err(ApiError::invalid("invalid name or ID supplied: \"\""));
    }
    let _place = api.place(Kind::Survey, call.role).await?;
    // It does not change once the container is made.
    let own = shown::config(&*api.containers().inspect(&container)?)?;
    let mut request = CommitRequest {
        reference: call.query.reference("repo"),
        author: text("author"),
        comment: text("comment"),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        command: own.cmd.as_deref().unwrap_or_default().join(" "),
        defaults: shown::image_part(&own),
        container: shown::image_part(&own),
        pause: call.query.get("pause").is_none() || call.query.flag("pause"),
    };
    let config: Option<Config> = reply::read_json(call.request, MAX_DOCUMENT).await?;
    // Without one, or with an empty one, the changes are made to what the container has.
    if let Some(config) = config.filter(|config| *config != Config::default()) {
        request.defaults = shown::image_part(&config);
    }
    let id = api.containers().commit(&container, request).await?;
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": id.to_string()}),
    ))
}
