//! Volumes that clients ask for: `-v name:/path`, `--mount type=volume`, and paths that are volumes.

use std::path::Path;

use keelson_model::spec::{ImageMount, MountSpec, VolumeMount};

use super::invalid;
use super::mounts::{is_named, target};
use crate::error::ApiError;
use crate::wire::{Config, HostConfig, Mount};

/// All volumes. `mounts` and `images` are the other mounts: they replace volumes of the image at
/// the same path.
pub(super) fn parse(
    config: &Config,
    host: &HostConfig,
    mounts: &[MountSpec],
    images: &[ImageMount],
) -> Result<Vec<VolumeMount>, ApiError> {
    let mut volumes = Vec::new();
    for bind in host.binds.iter().flatten() {
        if is_named(bind) {
            volumes.push(from_text(bind, &host.volume_driver)?);
        }
    }
    for mount in host.mounts.iter().flatten() {
        if mount.r#type == "volume" {
            volumes.push(from_mount(mount)?);
        }
    }
    for path in config.volumes.keys() {
        let path = target(path, path)?;
        let taken = volumes.iter().any(|mount| mount.target == path)
            || mounts.iter().any(|mount| mount.target == path)
            || images.iter().any(|mount| mount.target == path);
        if !taken {
            volumes.push(VolumeMount {
                target: path,
                anonymous: true,
                driver: host.volume_driver.clone(),
                ..VolumeMount::default()
            });
        }
    }
    Ok(volumes)
}

fn from_text(text: &str, driver: &str) -> Result<VolumeMount, ApiError> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let path = parts.next().unwrap_or_default();
    let mode = parts.next().unwrap_or_default();
    if path.is_empty() || parts.next().is_some() {
        return invalid(format!("invalid volume specification: '{text}'"));
    }
    let mut volume = VolumeMount {
        target: target(path, text)?,
        name: name.to_owned(),
        driver: driver.to_owned(),
        ..VolumeMount::default()
    };
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" | "z" | "Z" => {}
            "ro" => volume.read_only = true,
            "nocopy" => volume.no_copy = true,
            _ => {
                return invalid(format!(
                    "invalid volume specification: '{text}': invalid mode: {mode}"
                ));
            }
        }
    }
    Ok(volume)
}

fn from_mount(mount: &Mount) -> Result<VolumeMount, ApiError> {
    let options = mount.volume_options.clone().unwrap_or_default();
    let anonymous = mount.source.is_empty();
    let unfit = |reason: &str| {
        invalid(format!(
            "invalid mount config for type \"volume\": {reason}"
        ))
    };
    if !options.subpath.is_empty() {
        let path = Path::new(&options.subpath);
        let mut parts = path.components();
        if anonymous {
            return unfit("must not set Subpath when using anonymous volumes");
        }
        if !parts.all(|part| matches!(part, std::path::Component::Normal(_))) {
            return unfit("subpath must be a relative path within the volume");
        }
    }
    let driver = options.driver_config.unwrap_or_default();
    Ok(VolumeMount {
        target: target(&mount.target, &mount.target)?,
        name: mount.source.clone(),
        anonymous,
        read_only: mount.read_only,
        no_copy: options.no_copy,
        subpath: (!options.subpath.is_empty()).then(|| options.subpath.clone().into()),
        driver: driver.name,
        options: driver.options,
        labels: options.labels,
    })
}
