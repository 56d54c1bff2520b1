//! Load, save, import, tag, delete and prune.

use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hostd_images::{Image, ImportOptions, Loaded, Removed};
use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::list::Chosen;
use super::platform::Platform;
use super::progress::{EarlyFailure, stream_steps};
use crate::error::ApiError;
use crate::places::Kind;
use crate::reply::{self, Body, json_line};
use crate::version::ApiVersion;
use crate::{Api, Call, blocking};

pub(crate) async fn load(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let platform = match call.version >= ApiVersion::new(1, 48) {
        true => Platform::only_of_query(&call.query, "platform"),
        false => Ok(None),
    };
    // Docker reports the layers only when the client asks for them.
    let asked = call.query.all("quiet").next().is_some();
    let quiet = !asked || call.query.flag("quiet");
    let images = api.0.images.clone();
    let place = api.place(Kind::Upload, call.role).await;
    let mut archive = api.upload(call.request.into_body());
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            reply::drain(archive);
            return Err(error);
        }
    };
    let platform = match platform {
        Ok(platform) => platform.map(|platform| platform.to_string()),
        Err(error) => {
            reply::drain(archive);
            return Err(error);
        }
    };
    // A load continues when the client disconnects. It ends by itself or at the end of the archive.
    // Clients look for errors of the archive in the steps.
    stream_steps(EarlyFailure::Step, move |sender| async move {
        let sender = match quiet {
            true => mpsc::channel(1).0,
            false => sender,
        };
        let loaded = images
            .load_for(&mut archive, platform.as_deref(), sender)
            .await;
        drop(place);
        reply::drain(archive);
        let loaded = loaded?;
        Ok(loaded.iter().flat_map(loaded_lines).collect())
    })
    .await
}

fn loaded_lines(loaded: &Loaded) -> Vec<Value> {
    let replaced = loaded.replaced.iter().map(|(name, old)| {
        json!({"stream": format!(
            "The image {name} already exists, renaming the old one with ID {old} to empty string\n"
        )})
    });
    if loaded.references.is_empty() {
        return vec![json!({"stream": format!("Loaded image ID: {}\n", loaded.id)})];
    }
    let names = loaded.references.iter();
    let names = names.map(|name| json!({"stream": format!("Loaded image: {name}\n")}));
    replaced.chain(names).collect()
}

pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    if call.query.get("fromImage").is_some() {
        return super::remote::pull(api, &call).await;
    }
    let source = call.query.get("fromSrc").ok_or_else(|| {
        ApiError::invalid(
            "query parameter fromSrc is missing: a URL, or - for an archive in the request's body",
        )
    })?;
    let source = source.to_owned();
    let reference = call.query.reference("repo");
    let options = ImportOptions {
        reference,
        message: call.query.get("message").unwrap_or_default().to_owned(),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        platform: call.query.get("platform").map(str::to_owned),
    };
    if source != "-" {
        let images = api.0.images.clone();
        let place = api.place(Kind::Transfer, call.role).await?;
        return stream_steps(EarlyFailure::Status, move |sender| async move {
            let id = images.import_from(&source, options, sender).await?;
            drop(place);
            Ok(vec![json!({"status": id.to_string()})])
        })
        .await;
    }
    let place = api.place(Kind::Upload, call.role).await;
    let mut archive = api.upload(call.request.into_body());
    let imported = match &place {
        Ok(_) => api.0.images.import(&mut archive, options).await,
        Err(error) => {
            reply::drain(archive);
            return Err(error.clone());
        }
    };
    drop(place);
    reply::drain(archive);
    let id = imported?;
    Ok(reply::bytes(
        StatusCode::OK,
        "application/json",
        json_line(&json!({"status": id.to_string()})).to_vec(),
    ))
}

/// How much of an archive waits for a slow client, in bytes.
const SAVE_BUFFER: usize = 256 << 10;

pub(crate) async fn save(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let platform = match call.version >= ApiVersion::new(1, 48) {
        true => Platform::only_of_query(&call.query, "platform")?,
        false => None,
    };
    let names: Vec<String> = match call.name.as_str() {
        "" => call
            .query
            .all("names")
            // Some clients write them in one.
            .flat_map(|names| names.split(','))
            .map(str::to_owned)
            .collect(),
        name => vec![name.to_owned()],
    };
    if names.is_empty() {
        return Err(ApiError::invalid(
            "query parameter names is missing: the images to save",
        ));
    }
    if let Some(platform) = platform {
        for name in &names {
            platform.check(&*api.0.images.resolve(name)?, name)?;
        }
    }
    let place = api.place(Kind::Export, call.role).await?;
    let images = api.0.images.clone();
    let saved = blocking(move || images.save(&names)).await??;
    let (reader, mut writer) = tokio::io::duplex(SAVE_BUFFER);
    let task = tokio::spawn(async move {
        let written = saved.write_to(&mut writer).await;
        drop(place);
        written
    });
    // The reader ends after success and after failure. The task's result shows which.
    let end = stream::once(async move {
        match task.await {
            Ok(Ok(())) => Ok(Bytes::new()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(error) => Err(io::Error::other(error)),
        }
    });
    let parts = ReaderStream::with_capacity(reader, 64 << 10)
        .chain(end)
        .inspect_err(|error| tracing::warn!(%error, "images were not saved to the end"));
    Ok(reply::try_stream("application/x-tar", parts))
}

pub(crate) async fn tag(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let reference = call
        .query
        .reference("repo")
        .ok_or_else(|| ApiError::invalid("query parameter repo is missing: the new name"))?;
    let (images, name) = (api.0.images.clone(), call.name.clone());
    blocking(move || images.tag(&name, &reference)).await??;
    Ok(reply::empty(StatusCode::CREATED))
}

fn removed(removed: Vec<Removed>) -> Vec<Value> {
    removed
        .into_iter()
        .map(|entry| match entry {
            Removed::Untagged(name) => json!({"Untagged": name}),
            Removed::Deleted(id) => json!({"Deleted": id}),
        })
        .collect()
}

pub(crate) async fn delete(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    if call.name.trim().is_empty() {
        return Err(ApiError::invalid("image name cannot be blank"));
    }
    let (force, keep_parents) = (call.query.flag("force"), call.query.flag("noprune"));
    if call.version >= ApiVersion::new(1, 50) {
        let platforms = Platform::all_of_query(&call.query, "platforms")?;
        if !platforms.is_empty() {
            let image = api.0.images.resolve(&call.name)?;
            for platform in &platforms {
                platform.check(&image, &call.name)?;
            }
            // An image has one platform, so the image is removed with it, even if it has other
            // names.
            if !force && image.repo_tags.len() > 1 {
                return Err(ApiError::new(
                    ErrorKind::Conflict,
                    "Content will be removed from all images referencing this variant. Use --force to force delete.",
                ));
            }
        }
    }
    let (images, name) = (api.0.images.clone(), call.name.clone());
    let entries = blocking(move || images.remove(&name, force, keep_parents)).await??;
    Ok(reply::json(StatusCode::OK, &removed(entries)))
}

pub(crate) async fn prune(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call
        .query
        .filters(&["dangling", "until", "label", "label!"])?;
    let all = filters.flag("dangling")? == Some(false);
    let _place = api.place(Kind::Survey, call.role).await?;
    let images = api.0.images.clone();
    let pruned = blocking(move || {
        let chosen = Chosen::without_images(&filters)?;
        let fits = |image: &Image| chosen.fits_use(image);
        Ok::<_, ApiError>(images.prune(all, &fits)?)
    })
    .await??;
    let deleted = removed(pruned.removed);
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "ImagesDeleted": deleted,
            "SpaceReclaimed": pruned.reclaimed,
        }),
    ))
}
