//! `GET /images/json`, and the images of `GET /system/df`.

use std::collections::HashMap;

use hostd_images::{Image, ImageId};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::manifest;
use super::pattern::Pattern;
use crate::error::ApiError;
use crate::query::Filters;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, blocking, times};

const FILTERS: &[&str] = &[
    "before",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
    "until",
];

/// Optional parts of the list.
#[derive(Default)]
pub(crate) struct Extras {
    shared: Option<HashMap<ImageId, u64>>,
    /// Users of images, to count the containers of each.
    containers: bool,
    manifests: bool,
    descriptors: bool,
}

impl Extras {
    /// With sizes and numbers of containers, which take longer to compute.
    pub(crate) fn sizes(api: &Api) -> Self {
        Self {
            shared: Some(shared_sizes(api)),
            containers: true,
            ..Self::default()
        }
    }
}

fn shared_sizes(api: &Api) -> HashMap<ImageId, u64> {
    api.0.images.disk_usage().shared.into_iter().collect()
}

pub(crate) async fn list(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let api = api.clone();
    let answer = blocking(move || answer(&api, &call)).await??;
    Ok(reply::json(StatusCode::OK, &answer))
}

fn answer(api: &Api, call: &Call) -> Result<Vec<Value>, ApiError> {
    let mut filters = call.query.filters(FILTERS)?;
    // Old versions have a separate parameter for the reference.
    if call.version < ApiVersion::new(1, 41)
        && let Some(pattern) = call.query.get("filter")
    {
        filters.add("reference", pattern);
    }
    let since_version = |minor| call.version >= ApiVersion::new(1, minor);
    let extras = Extras {
        shared: (since_version(42) && call.query.flag("shared-size")).then(|| shared_sizes(api)),
        containers: false,
        manifests: since_version(47) && call.query.flag("manifests"),
        descriptors: since_version(48),
    };
    let all = call.query.flag("all");
    let images = api.0.images.list();
    let chosen = Chosen::new(api, &filters)?;
    let patterns: Vec<Pattern> = filters
        .values("reference")
        .iter()
        .map(|text| Pattern::parse(text))
        .collect::<Result<_, _>>()?;
    Ok(images
        .iter()
        .filter(|image| {
            // An image that others were built on is shown only when it has a name.
            let intermediate = || images.iter().any(|other| other.parent == Some(image.id));
            let named = !image.repo_tags.is_empty() || !image.repo_digests.is_empty();
            (all || named || !intermediate()) && chosen.fits(image)
        })
        .filter_map(|image| summary(api, image, &patterns, call.version, &extras))
        .collect())
}

/// The filters about the image itself.
pub(crate) struct Chosen<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl<'a> Chosen<'a> {
    fn new(api: &Api, filters: &'a Filters) -> Result<Self, ApiError> {
        let mut chosen = Self::with_until(filters, times::earliest_until(filters)?)?;
        for image in filters.values("before") {
            let time = created(&*api.0.images.resolve(image)?);
            chosen.before = Some(chosen.before.map_or(time, |other| other.min(time)));
        }
        for image in filters.values("since") {
            let time = created(&*api.0.images.resolve(image)?);
            chosen.since = Some(chosen.since.map_or(time, |other| other.max(time)));
        }
        Ok(chosen)
    }

    /// For filters that name no images (those of a prune).
    pub(crate) fn without_images(filters: &'a Filters) -> Result<Self, ApiError> {
        Self::with_until(filters, times::until(filters)?)
    }

    fn with_until(filters: &'a Filters, until: Option<Timestamp>) -> Result<Self, ApiError> {
        Ok(Self {
            filters,
            dangling: filters.flag("dangling")?,
            before: None,
            since: None,
            until,
        })
    }

    /// Whether label and time fit.
    pub(crate) fn fits_use(&self, image: &Image) -> bool {
        let labels = image.config.config.labels.as_ref();
        self.until.is_none_or(|time| created(image) <= time)
            && self
                .filters
                .labels(|key| labels?.get(key).map(String::as_str))
    }

    fn fits(&self, image: &Image) -> bool {
        self.dangling
            .is_none_or(|wanted| image.repo_tags.is_empty() == wanted)
            && self.before.is_none_or(|time| created(image) < time)
            && self.since.is_none_or(|time| created(image) > time)
            && self.fits_use(image)
    }
}

fn created(image: &Image) -> Timestamp {
    image
        .config
        .created
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// All images that have a name or that no other image was built on, for `GET /system/df`.
pub(crate) fn summaries(api: &Api, version: ApiVersion) -> Vec<Value> {
    let extras = Extras::sizes(api);
    let images = api.0.images.list();
    images
        .iter()
        .filter(|image| {
            !image.repo_tags.is_empty()
                || !image.repo_digests.is_empty()
                || !images.iter().any(|other| other.parent == Some(image.id))
        })
        .filter_map(|image| summary(api, image, &[], version, &extras))
        .collect()
}

/// `None`: no name of the image fits the filter.
fn summary(
    api: &Api,
    image: &Image,
    patterns: &[Pattern],
    version: ApiVersion,
    extras: &Extras,
) -> Option<Value> {
    let wanted = |name: &&String| patterns.is_empty() || patterns.iter().any(|p| p.fits(name));
    let mut tags: Vec<String> = image.repo_tags.iter().filter(wanted).cloned().collect();
    let mut digests: Vec<String> = image.repo_digests.iter().filter(wanted).cloned().collect();
    if !patterns.is_empty() && tags.is_empty() && digests.is_empty() {
        return None;
    }
    if version < ApiVersion::new(1, 43) && tags.is_empty() && digests.is_empty() {
        tags.push("<none>:<none>".to_owned());
        digests.push("<none>@<none>".to_owned());
    }
    let shared = extras
        .shared
        .as_ref()
        .and_then(|sizes| sizes.get(&image.id));
    let containers = extras.containers.then(|| {
        let count = api.0.images.containers(&image.id).len();
        i64::try_from(count).unwrap_or(i64::MAX)
    });
    let mut value = json!({
        "Id": image.id.to_string(),
        "ParentId": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": image.created,
        "Size": image.size,
        "SharedSize": shared.map_or(-1, |size| i64::try_from(*size).unwrap_or(i64::MAX)),
        "Labels": image.config.config.labels.clone().unwrap_or_default(),
        "Containers": containers.unwrap_or(-1),
    });
    super::show::add_virtual_size(&mut value, image, version);
    let (manifests, descriptors) = (extras.manifests, extras.descriptors);
    manifest::add(api, &mut value, image, manifests, descriptors);
    Some(value)
}
