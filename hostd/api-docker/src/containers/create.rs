//! `POST /containers/create`.

use std::collections::btree_map::Entry;

use hostd_containers::{CreateRequest, NewId};
use hostd_images::{Holder, Image};
use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::json::Json;
use keelson_model::spec::RootSpec;
use serde_json::json;

use super::{donors, versions};
use crate::error::ApiError;
use crate::images::platform::Platform;
use crate::reply::{self, Body};
use crate::request::{Ground, Understood, namespaces, understand};
use crate::version::ApiVersion;
use crate::wire::{CreateBody, EndpointSettings, HostConfig};
use crate::{Api, Call, MAX_DOCUMENT, info};

pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let name = call
        .query
        .get("name")
        .map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    let platform = call.query.get("platform").map(str::to_owned);
    let platform = platform.filter(|_| call.version >= ApiVersion::new(1, 41));
    let version = call.version;
    let document = reply::read_document(call.request, MAX_DOCUMENT)
        .await?
        .ok_or_else(|| ApiError::invalid("invalid JSON: got EOF while reading request body"))?;
    if document == Json::Null {
        return Err(ApiError::invalid(
            "config cannot be empty in order to create a container",
        ));
    }
    let mut body = CreateBody::read(document).map_err(reply::wrong_json)?;
    let of_version = versions::create(&mut body, version)?;
    if body.config.image.is_empty() {
        return Err(ApiError::invalid(
            "config.Image cannot be empty in order to create a container",
        ));
    }
    name_donors_by_id(api, &mut body.host_config);
    name_networks(api, &mut body)?;
    let id = NewId::generate();
    let holder = Holder::container(id.as_str());
    let (lease, image) = api.0.images.lease(&body.config.image, holder)?;
    let mismatch = match &platform {
        Some(platform) if !Platform::named(platform)?.fits(&image) => {
            return Err(ApiError::new(
                ErrorKind::NotFound,
                format!(
                    "image with reference {} was found but its platform ({}) does not match the specified platform ({platform})",
                    body.config.image,
                    Platform::of(&image)
                ),
            ));
        }
        Some(_) => None,
        None => foreign(&image),
    };
    let root = RootSpec::Image {
        id: image.id.to_string(),
        name: body.config.image.clone(),
        read_only: false,
    };
    let engine = &api.0.engine;
    let machine = info::host_name();
    let ground = Ground {
        facts: engine.facts(),
        engine: engine.root(),
        machine: &machine,
        runtimes: &api.0.runtimes,
        default_network: match engine.networks().has_default_bridge() {
            true => "bridge",
            false => "none",
        },
        init: engine.defaults().init,
        users: engine.defaults().user_namespaces.range(),
    };
    let defaults = Some(&image.config.config);
    let donors = body.host_config.volumes_from.clone().unwrap_or_default();
    let Understood {
        mut spec,
        shown,
        mut warnings,
    } = understand(id.as_str(), body, root, defaults, ground)?;
    donors::add(api, &donors, &mut spec)?;
    let request = CreateRequest {
        id,
        spec,
        shown: Some(shown),
        lease: Some(lease),
    };
    let created = api.containers().create(name, request).await?;
    warnings.extend(of_version.into_iter().chain(mismatch));
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": created.id, "Warnings": warnings}),
    ))
}

/// Replaces the names of containers whose namespaces are joined by identifiers, since names change.
/// A missing container is an error only at the start, because clients understand 404 here as a
/// missing image.
fn name_donors_by_id(api: &Api, host: &mut HostConfig) {
    for mode in [
        &mut host.network_mode,
        &mut host.pid_mode,
        &mut host.ipc_mode,
    ] {
        if let Some(name) = namespaces::donor(mode)
            && let Ok(found) = api.containers().inspect(name)
        {
            *mode = format!("container:{}", found.id);
        }
    }
}

/// Replaces clients' references to networks by the networks' names, and merges two settings of one
/// network. A missing network is reported at the start.
///
/// # Errors
/// Different settings are given for one network, by its name and by its identifier.
fn name_networks(api: &Api, body: &mut CreateBody) -> Result<(), ApiError> {
    let named = |term: &str| {
        let found = api.0.engine.networks().find(term);
        found.ok().map(|network| network.name.clone())
    };
    let mode = &mut body.host_config.network_mode;
    let is_plain = matches!(mode.as_str(), "" | "default") || namespaces::donor(mode).is_some();
    if !is_plain && let Some(name) = named(mode) {
        *mode = name;
    }
    let plain = EndpointSettings::default();
    let endpoints = std::mem::take(&mut body.networking_config.endpoints_config);
    for (term, settings) in endpoints {
        let name = match term.as_str() {
            "" | "default" => term,
            _ => named(&term).unwrap_or(term),
        };
        match body.networking_config.endpoints_config.entry(name) {
            Entry::Vacant(free) => drop(free.insert(settings)),
            Entry::Occupied(mut known) if *known.get() == plain => drop(known.insert(settings)),
            Entry::Occupied(known) if settings == plain || settings == *known.get() => {}
            Entry::Occupied(known) => {
                return Err(ApiError::invalid(format!(
                    "invalid endpoint settings:\nthe settings of network {} are given twice, by its name and by its identifier: give them once",
                    known.key()
                )));
            }
        }
    }
    Ok(())
}

/// The warning about an image that is for another platform.
fn foreign(image: &Image) -> Option<String> {
    let host = Platform::of_machine();
    (!host.fits(image)).then(|| {
        format!(
            "The requested image's platform ({}) does not match the detected host platform ({host}) and no specific platform was requested",
            Platform::of(image)
        )
    })
}
