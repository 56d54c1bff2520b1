//! `GET /system/df`.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::images::list::summaries;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, blocking, containers, volumes};

const TYPES: &[&str] = &["container", "image", "volume", "build-cache"];

pub(crate) async fn disk_usage(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let mut wanted: Vec<&str> = Vec::new();
    if call.version >= ApiVersion::new(1, 42) {
        for kind in call.query.all("type") {
            match TYPES.iter().find(|known| **known == kind) {
                Some(kind) => wanted.push(kind),
                None => return Err(ApiError::invalid(format!("unknown object type: {kind}"))),
            }
        }
    }
    let _place = api.place(Kind::Survey, call.role).await?;
    let is_wanted = |kind: &str| wanted.is_empty() || wanted.contains(&kind);
    let mut answer = Map::new();
    let mut put = |name: &str, value: Value| answer.insert(name.to_owned(), value);
    if is_wanted("image") {
        let (images, version) = (api.clone(), call.version);
        let list = blocking(move || summaries(&images, version)).await?;
        put("LayersSize", json!(api.0.images.disk_usage().layers));
        put("Images", Value::Array(list));
    }
    if is_wanted("container") {
        put(
            "Containers",
            containers::list::with_sizes(api, call.version).await?,
        );
    }
    if is_wanted("volume") {
        put("Volumes", volumes::with_usage(api).await?);
    }
    // There is no build cache.
    if is_wanted("build-cache") {
        put("BuildCache", json!([]));
        if call.version < ApiVersion::new(1, 42) {
            put("BuilderSize", json!(0));
        }
    }
    Ok(reply::json(StatusCode::OK, &answer))
}
