//! `/volumes`: volumes in Docker's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostd_images::tree_bytes;
use hostd_volumes::{Force, NewVolume, Volume, VolumeError};
use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::json::{Json, JsonError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::places::Kind;
use crate::query::{Filters, Patterns};
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, MAX_DOCUMENT, blocking};

/// The body of `POST /volumes/create`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateVolume {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    cluster_volume_spec: Option<Value>,
}

/// `GET /volumes`.
pub(crate) async fn list(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call
        .query
        .filters(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.flag("dangling")?;
    let names = Patterns::new(filters.values("name"));
    let store = api.0.engine.volumes().clone();
    let asked = store.clone();
    let (all, warnings) = blocking(move || asked.list_all()).await?;
    let volumes = all.into_iter().filter(|volume| {
        names.fit(&volume.name)
            && filters.any("driver", |wanted| volume.driver == wanted)
            && fits_labels(&filters, volume)
            && dangling.is_none_or(|wanted| store.holders(&volume.name).is_empty() == wanted)
    });
    let volumes: Vec<_> = volumes.map(|volume| render(&volume)).collect();
    Ok(reply::json(
        StatusCode::OK,
        &json!({"Volumes": volumes, "Warnings": (!warnings.is_empty()).then_some(warnings)}),
    ))
}

/// `POST /volumes/create`.
pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let document = reply::read_document(call.request, MAX_DOCUMENT)
        .await?
        .ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    let wrong = |error: JsonError| ApiError::invalid(format!("invalid JSON: {}", error.message()));
    let asked = match document {
        Json::Null => CreateVolume::default(),
        document => CreateVolume::deserialize(document).map_err(wrong)?,
    };
    if asked
        .cluster_volume_spec
        .is_some_and(|spec| !spec.is_null())
    {
        return Err(ApiError::new(
            ErrorKind::Unavailable,
            "ClusterVolumeSpec: this node is not part of a swarm, which cluster volumes need",
        ));
    }
    let new = NewVolume {
        name: asked.name.unwrap_or_default(),
        driver: asked.driver.unwrap_or_default(),
        options: asked.driver_opts.unwrap_or_default(),
        labels: asked.labels.unwrap_or_default(),
    };
    let store = api.0.engine.volumes().clone();
    let volume = blocking(move || store.create(new)).await??;
    Ok(reply::json(StatusCode::CREATED, &render(&volume)))
}

/// `GET /volumes/{name}`.
pub(crate) async fn inspect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let store = api.0.engine.volumes().clone();
    let volume = blocking(move || store.look(&call.name)).await??;
    Ok(reply::json(StatusCode::OK, &render(&volume)))
}

/// `DELETE /volumes/{name}`.
pub(crate) async fn remove(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let force = match call.query.flag("force") {
        true => Force::Yes,
        false => Force::No,
    };
    let store = api.0.engine.volumes().clone();
    match blocking(move || store.remove(&call.name, force)).await? {
        Err(VolumeError::NoSuchVolume(_)) if force == Force::Yes => {}
        other => other?,
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /volumes/prune`. Since API 1.42 only volumes without a name, unless `all` is asked for.
pub(crate) async fn prune(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(&["all", "label", "label!"])?;
    let all = filters.flag("all")?.unwrap_or(false) || call.version < ApiVersion::new(1, 42);
    // The sizes are measured before the removal.
    let _place = api.place(Kind::Survey, call.role).await?;
    let store = api.0.engine.volumes().clone();
    let pruned = blocking(move || {
        store.prune(
            |volume| (all || volume.is_anonymous()) && fits_labels(&filters, volume),
            |volume| bytes(volume).unwrap_or(0),
        )
    })
    .await??;
    let names = (!pruned.names.is_empty()).then_some(&pruned.names);
    Ok(reply::json(
        StatusCode::OK,
        &json!({"VolumesDeleted": names, "SpaceReclaimed": pruned.bytes}),
    ))
}

/// `PUT /volumes/{name}`: for cluster volumes only.
pub(crate) async fn update(_: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    reply::drain(reply::reader(call.request.into_body()));
    Err(ApiError::new(
        ErrorKind::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    ))
}

/// The volumes on this host's disk with their sizes, for `GET /system/df`.
pub(crate) async fn with_usage(api: &Api) -> Result<Value, ApiError> {
    let store = api.0.engine.volumes().clone();
    let list = blocking(move || {
        let list = store.list();
        let own = |volume: &&Arc<Volume>| volume.is_local() && volume.options.is_empty();
        let list = list.iter().filter(own).map(|volume| {
            let mut shown = render(volume);
            let usage = json!({
                // Docker's value for an unknown size.
                "Size": bytes(volume).map_or(json!(-1), |bytes| json!(bytes)),
                "RefCount": store.references(&volume.name),
            });
            if let Some(members) = shown.as_object_mut() {
                members.insert("UsageData".to_owned(), usage);
            }
            shown
        });
        list.collect::<Vec<_>>()
    })
    .await?;
    Ok(Value::Array(list))
}

/// The size of a volume on this host's disk in bytes. If it can't be read, `None` and a line in the
/// log. Blocks.
fn bytes(volume: &Volume) -> Option<u64> {
    tree_bytes(&volume.mountpoint)
        .inspect_err(
            |error| tracing::warn!(name = volume.name, %error, "size of a volume not found out"),
        )
        .ok()
}

fn fits_labels(filters: &Filters, volume: &Volume) -> bool {
    filters.labels(|key| volume.labels.get(key).map(String::as_str))
}

fn render(volume: &Arc<Volume>) -> Value {
    let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
    let mut shown = json!({
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": volume.driver,
        "Labels": some(&volume.labels),
        "Mountpoint": volume.mountpoint.to_string_lossy(),
        "Name": volume.name,
        "Options": some(&volume.options),
        "Scope": volume.reach.as_str(),
    });
    let told = volume.status.as_deref().map(serde_json::from_str::<Value>);
    if let (Some(Ok(status)), Some(members)) = (told, shown.as_object_mut()) {
        members.insert("Status".to_owned(), status);
    }
    if let (Some(reason), Some(members)) = (&volume.unreadable, shown.as_object_mut()) {
        members.insert("Status".to_owned(), json!({"error": reason}));
    }
    shown
}
