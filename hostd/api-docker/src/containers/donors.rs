//! `--volumes-from`: a new container gets the volumes and binds of others.

use std::path::Path;

use hostd_containers::check;
use keelson_model::spec::{ContainerSpec, MountKind, MountSpec, ReadOnly, VolumeMount};

use crate::Api;
use crate::error::ApiError;

/// Adds the volumes and binds of the named containers (`name[:mode]`) to a new one. A mount that
/// the client itself requested at the same target is kept; a volume of the image is replaced.
pub(super) fn add(api: &Api, names: &[String], spec: &mut ContainerSpec) -> Result<(), ApiError> {
    for text in names {
        let (name, read_only) = parse(text)?;
        // With 404 clients would pull the image.
        let donor = api
            .containers()
            .inspect(name)
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        spec.start_order.after.push(donor.id.clone());
        let binds = donor.spec.mounts.iter();
        for mount in binds.filter(|mount| matches!(mount.kind, MountKind::Bind(_))) {
            give_bind(mount, read_only, spec);
        }
        for mount in &donor.spec.volumes {
            give_volume(mount, read_only, spec);
        }
    }
    spec.mounts
        .sort_by_key(|mount| mount.target.components().count());
    check(spec, api.0.engine.root())?;
    Ok(())
}

/// The name, and whether the volumes are read-only.
fn parse(text: &str) -> Result<(&str, bool), ApiError> {
    let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
    if name.is_empty() {
        return Err(ApiError::invalid(
            "malformed volumes-from specification: ".to_owned() + text,
        ));
    }
    let mut read_only = false;
    for option in mode.split(',') {
        match option {
            "" | "rw" | "z" | "Z" => {}
            "ro" => read_only = true,
            _ => {
                return Err(ApiError::invalid(format!(
                    "invalid mode for volumes-from: {mode}"
                )));
            }
        }
    }
    Ok((name, read_only))
}

fn give_bind(mount: &MountSpec, read_only: bool, spec: &mut ContainerSpec) {
    if !make_way(&mount.target, spec) {
        return;
    }
    let mut mount = mount.clone();
    if let MountKind::Bind(bind) = &mut mount.kind
        && read_only
        && bind.read_only == ReadOnly::No
    {
        bind.read_only = ReadOnly::Recursive;
    }
    spec.mounts.push(mount);
}

fn give_volume(mount: &VolumeMount, read_only: bool, spec: &mut ContainerSpec) {
    if make_way(&mount.target, spec) {
        spec.volumes.push(VolumeMount {
            read_only: mount.read_only || read_only,
            no_copy: true,
            ..mount.clone()
        });
    }
}

/// Whether a target is free. Volumes of the image do not count.
fn make_way(target: &Path, spec: &mut ContainerSpec) -> bool {
    let is_of_image =
        |volume: &VolumeMount| volume.anonymous && volume.name.is_empty() && !volume.no_copy;
    spec.volumes
        .retain(|volume| volume.target != target || !is_of_image(volume));
    let taken = spec.volumes.iter().any(|other| other.target == target)
        || spec.mounts.iter().any(|other| other.target == target)
        || spec.images.iter().any(|other| other.target == target);
    !taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_only_restrict() {
        assert_eq!(parse("x").unwrap(), ("x", false));
        assert_eq!(parse("x:ro").unwrap(), ("x", true));
        assert_eq!(parse("x:rw,z").unwrap(), ("x", false));
        assert!(parse(":ro").is_err() && parse("x:slave").is_err());
    }
}
