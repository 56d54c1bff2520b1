//! Start, stop and everything else that changes a container's state.

use bytes::Bytes;
use futures::stream;
use hostd_containers::{Signal, Snapshot, WaitCondition};
use http::{Response, StatusCode};
use hyper::body::Body as _;
use keelson_model::error::ErrorKind;
use serde_json::json;

use super::versions;
use crate::error::ApiError;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::wire::HostConfig;
use crate::{Api, Call, MAX_DOCUMENT, request, times};

const DONE: StatusCode = StatusCode::NO_CONTENT;

pub(crate) async fn start(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    // Old clients send `null` or `{}`: at most seven bytes with white space, and their length.
    let length = call.request.body().size_hint().exact();
    if length.is_none_or(|length| length > 7) {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if call.query.get("checkpoint").is_some() {
        return Err(ApiError::not_built(
            "starting from a checkpoint is not built yet",
        ));
    }
    api.containers().start(&call.name).await?;
    Ok(reply::empty(DONE))
}

fn signal(call: &Call) -> Result<Option<Signal>, ApiError> {
    Ok(call
        .query
        .get("signal")
        .map(str::parse::<Signal>)
        .transpose()?)
}

/// The signal of a stop or restart, which older clients cannot choose.
fn stop_signal(call: &Call) -> Result<Option<Signal>, ApiError> {
    match call.version < ApiVersion::new(1, 42) {
        true => Ok(None),
        false => signal(call),
    }
}

pub(crate) async fn stop(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let (signal, timeout) = (stop_signal(&call)?, call.query.number("t")?);
    api.containers().stop(&call.name, signal, timeout).await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn restart(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let (signal, timeout) = (stop_signal(&call)?, call.query.number("t")?);
    api.containers()
        .restart(&call.name, signal, timeout)
        .await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn kill(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let signal = signal(&call)?.unwrap_or(Signal::KILL);
    api.containers().kill(&call.name, signal).await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn pause(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    api.containers().pause(&call.name).await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn unpause(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    api.containers().unpause(&call.name).await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn rename(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let name = call
        .query
        .get("name")
        .ok_or_else(|| ApiError::invalid("query parameter name is missing: the new name"))?;
    let name = name.strip_prefix('/').unwrap_or(name);
    api.containers().rename(&call.name, name).await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn update(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let mut wanted: HostConfig = reply::read_json(call.request, MAX_DOCUMENT)
        .await?
        .unwrap_or_default();
    versions::update(&mut wanted, call.version);
    let mut warnings = Vec::new();
    crate::request::discard(&mut wanted, api.0.engine.facts(), &mut warnings)?;
    let facts = api.0.engine.facts().clone();
    let change = move |container: &_| crate::request::update(container, &wanted, &facts);
    api.containers().update(&call.name, change).await?;
    Ok(reply::json(StatusCode::OK, &json!({"Warnings": warnings})))
}

pub(crate) async fn resize(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let (rows, columns) = super::terminal_size(&call)?;
    api.containers().resize(&call.name, rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

pub(crate) async fn delete(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    if call.query.flag("link") {
        return unlink(api, &call.name).await;
    }
    let (force, volumes) = (call.query.flag("force"), call.query.flag("v"));
    api.containers().remove(&call.name, force, volumes).await?;
    Ok(reply::empty(DONE))
}

/// Removes a link, which has the name `CONTAINER/ALIAS`.
async fn unlink(api: &Api, name: &str) -> Result<Response<Body>, ApiError> {
    let name = name.trim_start_matches('/');
    let Some((container, alias)) = name.split_once('/') else {
        return Err(ApiError::new(
            ErrorKind::Conflict,
            "conflict, cannot remove the default link name of the container",
        ));
    };
    let (gone, containers) = (alias.to_owned(), api.containers());
    let shown = move |container: &Snapshot| request::without_link(container, &gone);
    containers.unlink(container, alias, shown).await?;
    Ok(reply::empty(DONE))
}

pub(crate) async fn prune(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(&["until", "label", "label!"])?;
    let until = times::until(&filters)?;
    let _place = api.place(Kind::Survey, call.role).await?;
    let fits = move |container: &Snapshot| {
        let labels = &container.spec.labels;
        until.is_none_or(|time| container.created <= time)
            && filters.labels(|key| labels.get(key).map(String::as_str))
    };
    let pruned = api.containers().prune(fits).await?;
    // Docker says null for none.
    let deleted = (!pruned.removed.is_empty()).then_some(pruned.removed);
    Ok(reply::json(
        StatusCode::OK,
        &json!({"ContainersDeleted": deleted, "SpaceReclaimed": pruned.reclaimed}),
    ))
}

/// The head is sent as soon as the wait is registered. Clients start the container after it.
pub(crate) async fn wait(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    // Older clients wait for the end and read nothing before it.
    let old = call.version < ApiVersion::new(1, 30);
    let condition = match call.query.get("condition") {
        _ if old => WaitCondition::NotRunning,
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => {
            return Err(ApiError::invalid(format!(
                "invalid condition: {other:?}: expected not-running, next-exit or removed"
            )));
        }
    };
    let exited = api.containers().wait(&call.name, condition).await?;
    let with_error = call.version >= ApiVersion::new(1, 34);
    let answer = async move {
        let result = exited.await;
        let mut answer = json!({"StatusCode": result.exit_code});
        if let (Some(message), Some(members)) = (result.error, answer.as_object_mut()) {
            match with_error {
                true => members.insert("Error".to_owned(), json!({"Message": message})),
                false => return Bytes::new(),
            };
        }
        Bytes::from(format!("{answer}\n"))
    };
    if old {
        let answer = answer.await.to_vec();
        return Ok(reply::bytes(StatusCode::OK, "application/json", answer));
    }
    Ok(reply::stream("application/json", stream::once(answer)))
}
