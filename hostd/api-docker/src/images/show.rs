//! List, inspect and history.

use hostd_images::{Image, ImageConfig};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::query::Filters;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call};

const FILTERS: &[&str] = &[
    "before",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
];

pub(crate) fn list(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    for name in ["manifests", "shared-size"] {
        if call.query.flag(name) {
            return Err(ApiError::not_built(format!(
                "{name} in the list of images is not built yet"
            )));
        }
    }
    // Before 1.25 the reference had a parameter of its own.
    if call.query.get("filter").is_some() {
        return Err(ApiError::not_built(
            "the parameter filter is not built; use filters with reference",
        ));
    }
    let filters = call.query.filters(FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let created = |name: &str| -> Result<Option<i64>, ApiError> {
        filters
            .values(name)
            .first()
            .map(|image| Ok(api.0.images.resolve(image)?.created))
            .transpose()
    };
    let (before, since) = (created("before")?, created("since")?);
    let answer: Vec<Value> = api
        .0
        .images
        .list()
        .iter()
        .filter(|image| {
            dangling.is_none_or(|wanted| image.repo_tags.is_empty() == wanted)
                && before.is_none_or(|time| image.created < time)
                && since.is_none_or(|time| image.created > time)
                && labels_fit(image, &filters)
        })
        .filter_map(|image| summary(image, &filters, call.version))
        .collect();
    Ok(reply::json(StatusCode::OK, &answer))
}

fn labels_fit(image: &Image, filters: &Filters) -> bool {
    let labels = image.config.config.labels.as_ref();
    filters.labels(|key| labels?.get(key).map(String::as_str))
}

/// `None`: no name of the image fits the filter.
fn summary(image: &Image, filters: &Filters, version: ApiVersion) -> Option<Value> {
    let wanted = |name: &&String| filters.any("reference", |pattern| reference_fits(pattern, name));
    let mut tags: Vec<String> = image.repo_tags.iter().filter(wanted).cloned().collect();
    let mut digests: Vec<String> = image.repo_digests.iter().filter(wanted).cloned().collect();
    if filters.has("reference") && tags.is_empty() && digests.is_empty() {
        return None;
    }
    if version < ApiVersion::new(1, 43) && tags.is_empty() && digests.is_empty() {
        tags.push("<none>:<none>".to_owned());
        digests.push("<none>@<none>".to_owned());
    }
    let mut value = json!({
        "Id": image.id.to_string(),
        "ParentId": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": image.created,
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.config.labels,
        "Containers": -1,
    });
    add_virtual_size(&mut value, image, version);
    Some(value)
}

/// `VirtualSize` is the old name of `Size`.
fn add_virtual_size(value: &mut Value, image: &Image, version: ApiVersion) {
    if version < ApiVersion::new(1, 44)
        && let Some(members) = value.as_object_mut()
    {
        members.insert("VirtualSize".to_owned(), json!(image.size));
    }
}

/// Whether a pattern (`busybox`, `busy*`, `*/app:1.?`) fits a name with or without its tag or
/// digest.
fn reference_fits(pattern: &str, name: &str) -> bool {
    let repository = match name.split_once('@') {
        Some((repository, _)) => repository,
        None => match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        },
    };
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

/// `*` stands for any characters but `/`, `?` for one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on after the last `*`: its place in the pattern and the text it covers.
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                back = Some((p, t));
                p += 1;
                continue;
            }
            (Some(b'?'), Some(c)) if *c != b'/' => {
                p += 1;
                t += 1;
                continue;
            }
            (Some(a), Some(b)) if a == b && *a != b'?' => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match back {
            Some((star, covered)) if text.get(covered).is_some_and(|c| *c != b'/') => {
                back = Some((star, covered + 1));
                p = star + 1;
                t = covered + 1;
            }
            _ => return false,
        }
    }
    true
}

pub(crate) fn inspect(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    for name in ["manifests", "platform"] {
        if call.query.get(name).is_some() && (name != "manifests" || call.query.flag(name)) {
            return Err(ApiError::not_built(format!(
                "{name} in the inspection of an image is not built yet"
            )));
        }
    }
    let image = api.0.images.resolve(&call.name)?;
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
        "Config": container_config(config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlayfs", "Data": null},
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
    add_virtual_size(&mut value, &image, call.version);
    Ok(reply::json(StatusCode::OK, &value))
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
fn container_config(config: &ImageConfig) -> Value {
    let always = json!({
        "User": "", "Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null,
        "WorkingDir": "", "Labels": null, "OnBuild": null,
    });
    let mut members: Map<String, Value> = match always {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    if let Ok(Value::Object(own)) = serde_json::to_value(&config.config) {
        members.extend(own);
    }
    Value::Object(members)
}

pub(crate) fn history(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    if call.query.get("platform").is_some() {
        return Err(ApiError::not_built(
            "platform in the history of an image is not built yet",
        ));
    }
    let image = api.0.images.resolve(&call.name)?;
    Ok(reply::json(StatusCode::OK, &steps(&image)))
}

/// Newest step first; steps without a layer of their own are empty.
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
                "Tags": null,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_fit_patterns() {
        for (pattern, name) in [
            ("busybox", "busybox:latest"),
            ("busybox:latest", "busybox:latest"),
            ("busy*", "busybox:latest"),
            ("*:lat*t", "busybox:latest"),
            ("*/app", "team/app:1"),
            ("host:5000/app", "host:5000/app:1"),
            ("busyb?x", "busybox@sha256:00"),
        ] {
            assert!(reference_fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("busy", "busybox:latest"),
            ("*", "team/app:1"),
            ("busybox:1", "busybox:latest"),
        ] {
            assert!(!reference_fits(pattern, name), "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_text_fits_itself_and_stars(text in "[a-z:.]{0,20}", at in 0usize..20) {
            prop_assert!(glob(text.as_bytes(), text.as_bytes()));
            let at = at.min(text.len());
            let starred = format!("{}*{}", &text[..at], &text[at..]);
            prop_assert!(glob(starred.as_bytes(), text.as_bytes()));
        }
    }
}
