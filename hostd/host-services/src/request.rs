//! What container a service becomes. Pure.

use std::path::Path;

use hostd_containers::{CreateRequest, RootSource};
use keelson_model::container::{Config, DeviceMapping, HostConfig, Mount, RestartPolicy};
use keelson_model::service::{ServiceMount, ServiceSpec};

/// Label with the fingerprint of the files that a container was made from.
pub const FINGERPRINT: &str = "io.keelson.service.fingerprint";

/// Folders of every service that are writable and begin empty.
const SCRATCH: [&str; 2] = ["/run", "/tmp"];

/// The path on the host of a mount's source.
pub fn source(mount: &ServiceMount, state: &Path) -> String {
    match mount.source.strip_prefix("{state}") {
        Some(rest) => format!("{}{rest}", state.display()),
        None => mount.source.clone(),
    }
}

/// Makes the request. `exists` tells whether a path is there on the host: optional mounts and
/// devices that are not there are left out.
pub fn request(
    spec: &ServiceSpec,
    rootfs: &Path,
    state: &Path,
    fingerprint: &str,
    exists: impl Fn(&str) -> bool,
) -> CreateRequest {
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| (mount, source(mount, state)))
        .filter(|(mount, source)| !mount.optional || exists(source))
        .map(|(mount, source)| Mount {
            r#type: "bind".to_owned(),
            source,
            target: mount.target.clone(),
            read_only: !mount.writable,
            ..Mount::default()
        })
        .collect();
    let devices = spec
        .devices
        .iter()
        .filter(|path| exists(path))
        .map(|path| DeviceMapping {
            path_on_host: path.clone(),
            path_in_container: path.clone(),
            cgroup_permissions: "rw".to_owned(),
        })
        .collect();
    CreateRequest {
        config: Config {
            entrypoint: Some(spec.command.clone()),
            env: spec
                .environment
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            labels: [(FINGERPRINT.to_owned(), fingerprint.to_owned())].into(),
            ..Config::default()
        },
        host_config: HostConfig {
            network_mode: spec.network.clone(),
            readonly_rootfs: true,
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(spec.capabilities.clone()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            restart_policy: RestartPolicy {
                name: "always".to_owned(),
                maximum_retry_count: 0,
            },
            mounts: Some(mounts),
            devices: Some(devices),
            tmpfs: SCRATCH
                .iter()
                .map(|path| ((*path).to_owned(), "mode=755".to_owned()))
                .collect(),
            memory: spec
                .resources
                .memory
                .map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            pids_limit: spec.resources.pids,
            ..HostConfig::default()
        },
        root: RootSource::System(rootfs.to_owned()),
        ..CreateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        version = 1
        description = "time"
        command = ["/bin/d", "-n"]
        environment = { A = "b" }
        network = "host"
        capabilities = ["CAP_SYS_TIME"]
        devices = ["/dev/there", "/dev/absent"]
        [[mounts]]
        source = "{state}/data"
        target = "/data"
        writable = true
        [[mounts]]
        source = "/absent"
        target = "/x"
        optional = true
        [resources]
        memory = 1000
        pids = 5
    "#;

    #[test]
    fn a_service_has_what_it_lists_and_no_more() {
        let spec: ServiceSpec = toml::from_str(TEXT).unwrap();
        let made = request(
            &spec,
            Path::new("/usr/r.erofs"),
            Path::new("/var/s"),
            "f",
            |path| path == "/dev/there",
        );
        assert_eq!(made.root, RootSource::System("/usr/r.erofs".into()));
        assert_eq!(made.config.entrypoint.unwrap(), ["/bin/d", "-n"]);
        assert_eq!(made.config.env, ["A=b"]);
        let host = made.host_config;
        assert!(host.readonly_rootfs && !host.privileged);
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.cap_add.unwrap(), ["CAP_SYS_TIME"]);
        assert_eq!(host.network_mode, "host");
        let mounts = host.mounts.unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].source, "/var/s/data");
        assert!(!mounts[0].read_only);
        assert_eq!(host.devices.unwrap().len(), 1);
        assert_eq!((host.memory, host.pids_limit), (1000, Some(5)));
    }
}
