//! `/containers/…`.

pub(crate) mod archive;
pub(crate) mod content;
pub(crate) mod create;
mod detach;
mod donors;
pub(crate) mod exec;
mod health;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod network;
pub(crate) mod stats;
pub(crate) mod streams;
pub(crate) mod top;
mod versions;
pub(crate) mod websocket;

use std::sync::Arc;

use hostd_containers::Snapshot;
use keelson_model::spec::{MountKind, ReadOnly};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::request::shown;
use crate::{Api, Call};

/// Rows and columns of the query of a resize request.
fn terminal_size(call: &Call) -> Result<(u16, u16), ApiError> {
    let size = |name: &str, what: &str| {
        let value = call.query.get(name).unwrap_or_default();
        value
            .parse()
            .map_err(|_| ApiError::invalid(format!("invalid resize {what} {value:?}")))
    };
    Ok((size("h", "height")?, size("w", "width")?))
}

/// The mounts of a container as list and inspect show them.
fn mounts(api: &Api, container: &Snapshot) -> Result<Vec<Value>, ApiError> {
    let mut modes = shown::bind_modes(container)?;
    let volumes: Vec<_> = container
        .spec
        .volumes
        .iter()
        .map(|mount| {
            let target = mount.target.to_string_lossy();
            let volume = api.0.engine.volumes().inspect(&mount.name).ok();
            let source = api.0.engine.volumes().directory(&mount.name, &container.id);
            let source = source.ok().flatten().unwrap_or_default();
            let mode = modes.remove(&*target);
            json!({
                "Type": "volume",
                "Name": mount.name,
                "Source": source.to_string_lossy(),
                "Destination": target,
                "Driver": volume.as_ref().map_or(hostd_volumes::LOCAL, |volume| &volume.driver),
                // Docker gives named volumes the mode `z`, for hosts with SELinux labels.
                "Mode": mode.unwrap_or_else(|| if mount.anonymous { "" } else { "z" }.to_owned()),
                "RW": !mount.read_only,
                "Propagation": "",
            })
        })
        .collect();
    let images = container.spec.images.iter().map(|mount| {
        json!({
            "Type": "image",
            "Name": mount.name,
            "Source": mount.id,
            "Destination": mount.target.to_string_lossy(),
            "Mode": "",
            "RW": false,
            "Propagation": "",
        })
    });
    let images: Vec<_> = images.collect();
    let mounts = container.spec.mounts.iter().map(|mount| {
        let target = mount.target.to_string_lossy();
        let (kind, source, writable, propagation) = match &mount.kind {
            MountKind::Bind(bind) => (
                "bind",
                bind.source.to_string_lossy(),
                bind.read_only == ReadOnly::No,
                bind.propagation.as_str(),
            ),
            MountKind::Tmpfs(tmpfs) => ("tmpfs", "".into(), !tmpfs.read_only, ""),
        };
        json!({
            "Type": kind,
            "Source": source,
            "Destination": target,
            "Mode": modes.remove(&*target).unwrap_or_default(),
            "RW": writable,
            "Propagation": propagation,
        })
    });
    Ok(mounts.chain(volumes).chain(images).collect())
}

/// Bytes that the container has written to its root file system, and bytes of the whole root file
/// system.
///
/// # Errors
/// The container or its image can't be read. Then there is no size.
pub(crate) async fn sizes(api: &Api, snapshot: &Arc<Snapshot>) -> Result<(u64, u64), ApiError> {
    let written = api.containers().written_bytes(&snapshot.id).await?;
    let image = api.0.images.resolve(snapshot.image_id())?;
    Ok((written, image.size + written))
}
