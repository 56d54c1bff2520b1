//! Translates requests of older API versions. Members that a version does not have are ignored, and
//! some defaults were different.

mod sysctls;

use crate::error::ApiError;
use crate::version::ApiVersion;
use crate::wire::{CreateBody, HostConfig, Mount};

/// Translates the body of a creation to the newest version. Returns the warnings about it.
///
/// # Errors
/// InvalidInput: a member that would be unsafe to ignore.
pub(super) fn create(body: &mut CreateBody, version: ApiVersion) -> Result<Vec<String>, ApiError> {
    let before = |minor| version < ApiVersion::new(1, minor);
    let host = &mut body.host_config;
    if before(25) {
        // Such a client removes the container itself.
        host.auto_remove = false;
    }
    if before(40) {
        if host.ipc_mode.is_empty() {
            "shareable".clone_into(&mut host.ipc_mode);
        }
        host.kernel_memory_tcp = Default::default();
        for mount in bind_mounts(host) {
            if let Some(options) = &mut mount.bind_options {
                options.non_recursive = false;
            }
        }
    }
    if before(42) {
        host.console_size = [0, 0];
        for mount in host.mounts.iter_mut().flatten() {
            drop_foreign_options(mount);
        }
    } else {
        host.kernel_memory = Default::default();
    }
    if before(43) {
        host.annotations.clear();
    }
    if before(44) {
        before_1_44(body)?;
    }
    let mounts = body.host_config.mounts.iter().flatten();
    for mount in mounts {
        let subpath = mount
            .volume_options
            .as_ref()
            .map(|options| &options.subpath);
        if before(45) && subpath.is_some_and(|path| !path.is_empty()) {
            return Err(needs("VolumeOptions.Subpath", 45));
        }
        if before(48) && mount.r#type == "image" {
            return Err(needs("Mount type \"Image\"", 48));
        }
    }
    if before(48) {
        let endpoints = &mut body.networking_config.endpoints_config;
        endpoints.values_mut().for_each(|end| end.gw_priority = 0);
    }
    let mut warnings = sysctls::of_interfaces(body, version)?;
    if !before(44) && !body.config.mac_address.is_empty() {
        warnings.push(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
                .to_owned(),
        );
    }
    Ok(warnings)
}

fn before_1_44(body: &mut CreateBody) -> Result<(), ApiError> {
    if let Some(health) = &mut body.config.healthcheck {
        health.start_interval = 0;
    }
    for mount in bind_mounts(&mut body.host_config) {
        let options = mount.bind_options.get_or_insert_default();
        // Ignored, the mount would be less safe than the client believes.
        if options.read_only_force_recursive {
            return Err(needs("BindOptions.ReadOnlyForceRecursive", 44));
        }
        options.read_only_non_recursive = true;
    }
    let endpoints = &mut body.networking_config.endpoints_config;
    if endpoints.len() > 1 {
        let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
        return Err(ApiError::invalid(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    endpoints
        .values_mut()
        .for_each(|end| end.mac_address.clear());
    Ok(())
}

/// Translates the body of an update to the newest version.
pub(super) fn update(wanted: &mut HostConfig, version: ApiVersion) {
    if version < ApiVersion::new(1, 40) {
        wanted.pids_limit = None;
        wanted.kernel_memory_tcp = Default::default();
    }
    if version >= ApiVersion::new(1, 42) {
        wanted.kernel_memory = Default::default();
    }
}

fn bind_mounts(host: &mut HostConfig) -> impl Iterator<Item = &mut Mount> {
    let mounts = host.mounts.iter_mut().flatten();
    mounts.filter(|mount| mount.r#type == "bind")
}

/// Options of another type of mount.
fn drop_foreign_options(mount: &mut Mount) {
    let kind = mount.r#type.as_str();
    if kind != "bind" {
        mount.bind_options = None;
    }
    if kind != "volume" {
        mount.volume_options = None;
    }
    if kind != "image" {
        mount.image_options = None;
    }
    if kind != "tmpfs" {
        mount.tmpfs_options = None;
    }
}

fn needs(what: &str, minor: u16) -> ApiError {
    let version = ApiVersion::new(1, minor);
    ApiError::invalid(format!("{what} needs API v{version} or newer"))
}

#[cfg(test)]
mod tests {
    use keelson_model::json::Json;

    use super::*;

    fn read(text: &str, minor: u16) -> Result<CreateBody, String> {
        let mut body = CreateBody::read(Json::parse(text.as_bytes()).unwrap()).unwrap();
        let result = create(&mut body, ApiVersion::new(1, minor));
        result.map(|_| body).map_err(|error| error.to_string())
    }

    fn host(text: &str, minor: u16) -> HostConfig {
        let text = format!(r#"{{"HostConfig":{text}}}"#);
        read(&text, minor).unwrap().host_config
    }

    #[test]
    fn members_of_later_versions_are_of_no_effect() {
        let remove = r#"{"AutoRemove":true}"#;
        assert_eq!(
            (host(remove, 24).auto_remove, host(remove, 25).auto_remove),
            (false, true)
        );
        assert_eq!(host("{}", 39).ipc_mode, "shareable");
        assert_eq!(host("{}", 40).ipc_mode, "");
        assert_eq!(host(r#"{"IpcMode":"host"}"#, 39).ipc_mode, "host");
        let size = r#"{"ConsoleSize":[1,2]}"#;
        assert_eq!(
            (host(size, 41).console_size, host(size, 42).console_size),
            ([0, 0], [1, 2])
        );
        let notes = r#"{"Annotations":{"a":"b"}}"#;
        assert_eq!(
            (
                host(notes, 42).annotations.len(),
                host(notes, 43).annotations.len()
            ),
            (0, 1)
        );
        let kernel = r#"{"KernelMemory":5,"KernelMemoryTCP":5}"#;
        let sizes = |minor| {
            let host = host(kernel, minor);
            (host.kernel_memory.0, host.kernel_memory_tcp.0)
        };
        assert_eq!((sizes(39), sizes(41), sizes(42)), ((5, 0), (5, 5), (0, 5)));
    }

    #[test]
    fn mounts_of_older_clients() {
        let mount = |text: &str, minor| {
            let text = format!(r#"{{"Mounts":[{text}]}}"#);
            host(&text, minor).mounts.unwrap().remove(0)
        };
        let bind = r#"{"Type":"bind","VolumeOptions":{},"BindOptions":{"NonRecursive":true}}"#;
        let options = |minor| mount(bind, minor).bind_options.unwrap();
        assert!(!options(39).non_recursive && options(40).non_recursive);
        assert!(options(43).read_only_non_recursive && !options(44).read_only_non_recursive);
        assert_eq!(mount(bind, 41).volume_options, None);
        assert!(mount(bind, 42).volume_options.is_some());
        for (text, since, word) in [
            (
                r#"{"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}}"#,
                44,
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
            ),
            (
                r#"{"Type":"volume","VolumeOptions":{"Subpath":"a"}}"#,
                45,
                "VolumeOptions.Subpath needs API v1.45 or newer",
            ),
            (
                r#"{"Type":"image"}"#,
                48,
                "Mount type \"Image\" needs API v1.48 or newer",
            ),
        ] {
            let text = format!(r#"{{"HostConfig":{{"Mounts":[{text}]}}}}"#);
            assert_eq!(read(&text, since - 1).unwrap_err(), word);
            read(&text, since).unwrap();
        }
    }

    #[test]
    fn end_points_of_older_clients() {
        let two = r#"{"NetworkingConfig":{"EndpointsConfig":{"b":{},"a":{"MacAddress":"x"}}}}"#;
        assert_eq!(
            read(two, 43).unwrap_err(),
            "Container cannot be created with multiple network endpoints: a, b"
        );
        read(two, 44).unwrap();
        let one =
            r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"MacAddress":"x","GwPriority":1}}}}"#;
        let end = |minor| {
            let config = read(one, minor).unwrap().networking_config;
            let end = config.endpoints_config.into_values().next().unwrap();
            (end.mac_address, end.gw_priority)
        };
        assert_eq!(end(43), (String::new(), 0));
        assert_eq!(end(44), ("x".to_owned(), 0));
        assert_eq!(end(48), ("x".to_owned(), 1));
    }

    #[test]
    fn updates_of_older_clients() {
        let mut wanted = HostConfig {
            pids_limit: Some(5),
            ..HostConfig::default()
        };
        update(&mut wanted, ApiVersion::new(1, 40));
        assert_eq!(wanted.pids_limit, Some(5));
        update(&mut wanted, ApiVersion::new(1, 39));
        assert_eq!(wanted.pids_limit, None);
    }
}
