//! `POST /containers/create`.

use hostd_containers::{CreateRequest, RootSource};
use hostd_images::Image;
use http::{Response, StatusCode};
use keelson_model::container::CreateBody;
use keelson_model::error::ErrorKind;
use keelson_model::json::Json;
use serde_json::json;

use super::versions;
use crate::error::ApiError;
use crate::images::platform::Platform;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call};

pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let name = call
        .query
        .get("name")
        .map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    let platform = call.query.get("platform").map(str::to_owned);
    let platform = platform.filter(|_| call.version >= ApiVersion::new(1, 41));
    let version = call.version;
    let document = reply::read_document(call.request)
        .await?
        .ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    if document == Json::Null {
        return Err(ApiError::invalid(
            "config cannot be empty in order to create a container",
        ));
    }
    let mut body = CreateBody::read(document).map_err(reply::wrong_json)?;
    versions::create(&mut body, version)?;
    if body.config.image.is_empty() {
        return Err(ApiError::invalid(
            "config.Image cannot be empty in order to create a container",
        ));
    }
    // Whether there is such an image is said by the engine.
    let image = api.0.images.resolve(&body.config.image).ok();
    let mismatch = match (&image, &platform) {
        (Some(image), Some(platform)) if !Platform::named(platform)?.fits(image) => {
            return Err(ApiError::new(
                ErrorKind::NotFound,
                format!(
                    "image with reference {} was found but its platform ({}) does not match the specified platform ({platform})",
                    body.config.image,
                    Platform::of(image)
                ),
            ));
        }
        (Some(image), None) => foreign(image),
        _ => None,
    };
    let request = CreateRequest {
        config: body.config,
        host_config: body.host_config,
        networking: body.networking_config,
        root: RootSource::Image,
    };
    let created = api.containers().create(name, request).await?;
    let mut warnings = created.warnings;
    warnings.extend(mismatch);
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": created.id, "Warnings": warnings}),
    ))
}

/// What to tell of an image that is for another kind of machine.
fn foreign(image: &Image) -> Option<String> {
    let host = Platform::of_machine();
    (!host.fits(image)).then(|| {
        format!(
            "The requested image's platform ({}) does not match the detected host platform ({host}) and no specific platform was requested",
            Platform::of(image)
        )
    })
}
