//! `GET /containers/json`.

use std::sync::Arc;

use hostd_containers::{Scope, Snapshot, Status};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{mount, network_name, networks, sizes};
use crate::error::ApiError;
use crate::places::Kind;
use crate::query::{Filters, name_fits};
use crate::reply::{self, Body};
use crate::{Api, Call, times};

/// Filters that work.
const FILTERS: &[&str] = &[
    "ancestor", "before", "exited", "id", "label", "label!", "name", "network", "since", "status",
    "volume",
];
/// Filters that Docker has and that are not built.
const NOT_BUILT: &[&str] = &["expose", "health", "is-task", "isolation", "publish"];

const STATES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];

pub(crate) async fn list(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    let known: Vec<&str> = FILTERS.iter().chain(NOT_BUILT).copied().collect();
    let filters = call.query.filters(&known)?;
    if let Some(name) = NOT_BUILT.iter().find(|name| filters.has(name)) {
        return Err(ApiError::not_built(format!(
            "the filter {name} of the list of containers is not built yet"
        )));
    }
    for state in filters.values("status") {
        if !STATES.contains(&state.as_str()) {
            return Err(ApiError::invalid(format!(
                "invalid filter 'status={state}'"
            )));
        }
    }
    let mut exited = Vec::new();
    for code in filters.values("exited") {
        exited.push(code.parse::<i32>().map_err(|_| {
            ApiError::invalid(format!("invalid filter 'exited={code}': not a number"))
        })?);
    }
    let limit: i64 = call.query.number("limit")?.unwrap_or(0);
    let all = call.query.flag("all") || limit > 0 || filters.has("status");
    let created = |name: &str| -> Result<Option<_>, ApiError> {
        filters
            .values(name)
            .first()
            .map(|container| Ok(api.0.engine.inspect(Scope::User, container)?.created))
            .transpose()
    };
    let (before, since) = (created("before")?, created("since")?);
    let ancestors = ancestors(api, &filters);

    let mut chosen: Vec<Arc<Snapshot>> = api.0.engine.list(Scope::User);
    chosen.sort_by_key(|container| std::cmp::Reverse(container.created));
    chosen.retain(|container| {
        (all || container.state.status.counts_as_running())
            && before.is_none_or(|time| container.created < time)
            && since.is_none_or(|time| container.created > time)
            && (exited.is_empty()
                || (container.state.status == Status::Exited
                    && exited.contains(&container.state.exit_code)))
            && (!filters.has("ancestor") || ancestors.contains(&container.image_id))
            && fits(container, &filters)
    });
    if let Ok(limit @ 1..) = usize::try_from(limit) {
        chosen.truncate(limit);
    }

    let with_size = call.query.flag("size");
    let _place = match with_size {
        true => Some(api.place(Kind::Survey, call.role).await?),
        false => None,
    };
    let answer = summaries(api, &chosen, with_size).await;
    Ok(reply::json(StatusCode::OK, &answer))
}

/// All containers with their sizes, for `GET /system/df`.
pub(crate) async fn with_sizes(api: &Api) -> Value {
    Value::Array(summaries(api, &api.0.engine.list(Scope::User), true).await)
}

async fn summaries(api: &Api, containers: &[Arc<Snapshot>], with_size: bool) -> Vec<Value> {
    let mut answer = Vec::with_capacity(containers.len());
    for container in containers {
        let mut summary = render(api, container);
        if with_size && let Some(members) = summary.as_object_mut() {
            // Docker's sign for a size that can't be found out.
            let (written, whole) = match sizes(api, container).await {
                Ok((written, whole)) => (json!(written), json!(whole)),
                Err(error) => {
                    tracing::warn!(id = container.id, %error, "size of a container not found out");
                    (json!(-1), json!(-1))
                }
            };
            members.insert("SizeRw".to_owned(), written);
            members.insert("SizeRootFs".to_owned(), whole);
        }
        answer.push(summary);
    }
    answer
}

/// Identifiers of the images that the filter names.
fn ancestors(api: &Api, filters: &Filters) -> Vec<String> {
    filters
        .values("ancestor")
        .iter()
        .filter_map(|name| api.0.images.resolve(name).ok())
        .map(|image| image.id.to_string())
        .collect()
}

/// The filters that need nothing but the container itself.
fn fits(container: &Snapshot, filters: &Filters) -> bool {
    let labels = &container.config.labels;
    filters.any("id", |wanted| container.id.starts_with(wanted))
        && filters.any("name", |wanted| name_fits(wanted, &container.name))
        && filters.any("status", |wanted| wanted == container.state.status.as_str())
        && filters.labels(|key| labels.get(key).map(String::as_str))
        && filters.any("network", |wanted| network_name(container) == Some(wanted))
        && filters.any("volume", |wanted| {
            container
                .mounts
                .iter()
                .any(|mount| mount.name == wanted || mount.destination == wanted)
        })
}

fn render(api: &Api, container: &Snapshot) -> Value {
    // The name may belong to another image by now.
    let image = match api.0.images.resolve(&container.image) {
        Ok(image) if image.id.to_string() == container.image_id => &container.image,
        _ => &container.image_id,
    };
    let mounts: Vec<Value> = container.mounts.iter().map(mount).collect();
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": image,
        "ImageID": container.image_id,
        "Command": command(&container.path, &container.args),
        "Created": container.created.as_second(),
        "Ports": [],
        "Labels": container.config.labels,
        "State": container.state.status.as_str(),
        "Status": status(container, jiff::Timestamp::now()),
        "HostConfig": {"NetworkMode": container.host_config.network_mode},
        "NetworkSettings": {"Networks": networks(container)},
        "Mounts": mounts,
    })
}

fn command(path: &str, args: &[String]) -> String {
    let mut text = path.to_owned();
    for arg in args {
        text.push(' ');
        match arg.contains(' ') {
            true => text.push_str(&format!("'{arg}'")),
            false => text.push_str(arg),
        }
    }
    text
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`, …; clients match on these words.
fn status(container: &Snapshot, now: jiff::Timestamp) -> String {
    let state = &container.state;
    let since = |time: Option<jiff::Timestamp>| {
        times::human_duration(time.map_or(0, |time| now.as_second() - time.as_second()))
    };
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", since(state.started_at)),
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_with_spaces_are_quoted() {
        let args = ["-c".to_owned(), "echo a b".to_owned()];
        assert_eq!(command("sh", &args), "sh -c 'echo a b'");
        assert_eq!(command("true", &[]), "true");
    }
}
