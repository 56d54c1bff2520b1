//! The completed request as clients see it later. The engine stores it and does not read it.

use std::collections::BTreeMap;
use std::path::Path;

use hostd_containers::{Shown, Snapshot};
use hostd_images::ContainerDefaults;
use keelson_model::error::ErrorKind;
use keelson_model::spec::{MountKind, MountSpec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::wire::{Config, Empty, HostConfig};

/// The stored document.
pub(super) fn shown(config: &Config, host: &HostConfig) -> Result<Shown, ApiError> {
    let unwritable = |error: serde_json::Error| {
        ApiError::new(
            ErrorKind::Internal,
            format!("configuration as JSON: {error}"),
        )
    };
    Ok(Shown {
        config: serde_json::to_string(config).map_err(unwritable)?.into(),
        host: serde_json::to_string(host).map_err(unwritable)?.into(),
    })
}

/// `Config` of an inspected container.
pub(crate) fn config(container: &Snapshot) -> Result<Config, ApiError> {
    read(container, |shown| &shown.config)
}

/// `HostConfig` of an inspected container.
pub(crate) fn host_config(container: &Snapshot) -> Result<HostConfig, ApiError> {
    read(container, |shown| &shown.host)
}

fn read<T: DeserializeOwned + Default>(
    container: &Snapshot,
    part: fn(&Shown) -> &str,
) -> Result<T, ApiError> {
    let Some(shown) = &container.shown else {
        return Ok(T::default());
    };
    serde_json::from_str(part(shown)).map_err(|error| {
        ApiError::new(
            ErrorKind::Internal,
            format!(
                "container {}: its view for clients can't be read: {error}",
                container.id
            ),
        )
    })
}

/// The option strings of `-v`, by their targets: `z,ro`. They are only shown.
pub(crate) fn bind_modes(container: &Snapshot) -> Result<BTreeMap<String, String>, ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Part {
        binds: Option<Vec<String>>,
    }

    let mounts = &container.spec.mounts;
    let is_bind = |mount: &MountSpec| matches!(mount.kind, MountKind::Bind(_));
    if container.spec.volumes.is_empty() && !mounts.iter().any(is_bind) {
        return Ok(BTreeMap::new());
    }
    let part: Part = read(container, |shown| &shown.host)?;
    let modes = part.binds.iter().flatten().filter_map(|bind| {
        let mut parts = bind.split(':').skip(1);
        let target = super::mounts::clean(Path::new(parts.next()?));
        Some((
            target.to_string_lossy().into_owned(),
            parts.next()?.to_owned(),
        ))
    });
    Ok(modes.collect())
}

/// The part of a container's configuration that an image has, too.
pub(crate) fn image_part(config: &Config) -> ContainerDefaults {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let set = |members: &BTreeMap<String, Empty>| {
        let members = members.keys().map(|name| (name.clone(), json!({})));
        (members.len() > 0).then(|| members.collect::<BTreeMap<_, Value>>())
    };
    let env: Vec<_> = config
        .env
        .iter()
        // A name alone removed the image's variable when the request was completed.
        .filter(|variable| variable.contains('='))
        .cloned()
        .collect();
    ContainerDefaults {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: (!env.is_empty()).then_some(env),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: set(&config.volumes),
        working_dir: config.working_dir.clone(),
        labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
        stop_signal: some(&config.stop_signal),
        healthcheck: config
            .healthcheck
            .as_ref()
            .and_then(|health| serde_json::to_value(health).ok()),
        on_build: config.on_build.clone(),
        shell: config.shell.clone(),
        ..ContainerDefaults::default()
    }
}
