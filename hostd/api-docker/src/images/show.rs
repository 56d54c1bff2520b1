//! Inspect and history.

use hostd_images::{Image, ImageConfig};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::manifest;
use super::platform::Platform;
use crate::error::ApiError;
use crate::offers::STORAGE_DRIVER;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, blocking};

/// `VirtualSize` is the old name of `Size`.
pub(crate) fn add_virtual_size(value: &mut Value, image: &Image, version: ApiVersion) {
    if version < ApiVersion::new(1, 44)
        && let Some(members) = value.as_object_mut()
    {
        members.insert("VirtualSize".to_owned(), json!(image.size));
    }
}

pub(crate) async fn inspect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let api = api.clone();
    let answer = blocking(move || inspection(&api, &call)).await??;
    Ok(reply::json(StatusCode::OK, &answer))
}

fn inspection(api: &Api, call: &Call) -> Result<Value, ApiError> {
    let manifests = call.version >= ApiVersion::new(1, 48) && call.query.flag("manifests");
    let platform = match call.version >= ApiVersion::new(1, 49) {
        true => Platform::of_query(&call.query, "platform")?,
        false => None,
    };
    if manifests && platform.is_some() {
        return Err(ApiError::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let image = api.0.images.resolve(&call.name)?;
    if let Some(platform) = platform {
        platform.check(&image, &call.name)?;
    }
    let config = &image.config;
    let layers: Vec<String> = image.layers.iter().map(|l| l.diff_id.to_string()).collect();
    let mut value = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "Comment": last_comment(config),
        "Created": config.created,
        "DockerVersion": other(config, "docker_version"),
        "Author": config.author.as_deref().unwrap_or_default(),
        "Config": container_config(config, call.version),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {"Name": STORAGE_DRIVER, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {
            "LastTagTime": image.last_tagged.as_deref().unwrap_or(crate::times::NEVER),
        },
    });
    if let Some(members) = value.as_object_mut() {
        for (name, text) in [
            ("Variant", &config.variant),
            ("OsVersion", &config.os_version),
        ] {
            if let Some(text) = text {
                members.insert(name.to_owned(), json!(text));
            }
        }
    }
    if config.created.is_none()
        && let Some(members) = value.as_object_mut()
    {
        match call.version < ApiVersion::new(1, 44) {
            true => members.insert("Created".to_owned(), json!(crate::times::NEVER)),
            false => members.remove("Created"),
        };
    }
    add_virtual_size(&mut value, &image, call.version);
    if call.version < ApiVersion::new(1, 45)
        && let Some(members) = value.as_object_mut()
    {
        let old = |name: &str| config.other.get(name).cloned();
        let container = old("container").unwrap_or_else(|| json!(""));
        members.insert("Container".to_owned(), container);
        let own = old("container_config");
        let own = own.unwrap_or_else(|| container_config(&ImageConfig::default(), call.version));
        members.insert("ContainerConfig".to_owned(), own);
    }
    let descriptors = call.version >= ApiVersion::new(1, 48);
    manifest::add(api, &mut value, &image, manifests, descriptors);
    Ok(value)
}

fn other<'a>(config: &'a ImageConfig, name: &str) -> &'a str {
    config
        .other
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn last_comment(config: &ImageConfig) -> &str {
    match other(config, "comment") {
        "" => config
            .history
            .last()
            .and_then(|step| step.comment.as_deref())
            .unwrap_or_default(),
        comment => comment,
    }
}

/// The image's defaults with the members that Docker always shows.
fn container_config(config: &ImageConfig, version: ApiVersion) -> Value {
    let always = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null,
        "WorkingDir": "", "Labels": null, "OnBuild": null,
    });
    // These members concern containers and have no meaning for images.
    let former = json!({
        "Hostname": "", "Domainname": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Image": "",
    });
    let mut members = Map::new();
    let parts = [
        Some(always),
        (version < ApiVersion::new(1, 50)).then_some(former),
    ];
    for part in parts.into_iter().flatten() {
        if let Value::Object(part) = part {
            members.extend(part);
        }
    }
    if let Ok(Value::Object(own)) = serde_json::to_value(&config.config) {
        members.extend(own);
    }
    Value::Object(members)
}

pub(crate) async fn history(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let image = api.0.images.resolve(&call.name)?;
    if call.version >= ApiVersion::new(1, 48)
        && let Some(platform) = Platform::of_query(&call.query, "platform")?
    {
        platform.check(&image, &call.name)?;
    }
    Ok(reply::json(StatusCode::OK, &steps(&image)))
}

/// The newest step comes first. A step without a layer is empty.
fn steps(image: &Image) -> Vec<Value> {
    let mut sizes = image.layers.iter().map(|layer| layer.size);
    let mut steps: Vec<Value> = image
        .config
        .history
        .iter()
        .map(|step| {
            let size = match step.empty_layer {
                true => 0,
                false => sizes.next().unwrap_or(0),
            };
            let created = step
                .created
                .as_deref()
                .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                .map_or(0, jiff::Timestamp::as_second);
            json!({
                "Id": "<missing>",
                "Created": created,
                "CreatedBy": step.created_by.as_deref().unwrap_or_default(),
                "Tags": [],
                "Size": size,
                "Comment": step.comment.as_deref().unwrap_or_default(),
            })
        })
        .collect();
    steps.reverse();
    if let Some(newest) = steps.first_mut().and_then(Value::as_object_mut) {
        newest.insert("Id".to_owned(), json!(image.id.to_string()));
        if !image.repo_tags.is_empty() {
            newest.insert("Tags".to_owned(), json!(image.repo_tags));
        }
    }
    steps
}
