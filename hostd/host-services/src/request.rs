//! The container that a service becomes. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hostd_containers::{EngineError, usual_propagation};
use keelson_model::service::{ServiceMount, ServiceSpec};
use keelson_model::spec::{
    BindMount, CapabilitySet, ContainerSpec, DeviceAccess, DeviceSpec, HostName, MountKind,
    MountSpec, NetworkMode, PidsLimit, ReadOnly, RestartPolicy, RootSpec, TmpfsMount,
};

/// Label with the fingerprint of the files that a container was made from.
pub const FINGERPRINT: &str = "io.keelson.service.fingerprint";

/// Writable directories that every service has. They are empty at its start.
const SCRATCH: [&str; 2] = ["/run", "/tmp"];

/// The path on the host of a mount's source.
pub fn source(mount: &ServiceMount, state: &Path) -> String {
    match mount.source.strip_prefix("{state}") {
        Some(rest) => format!("{}{rest}", state.display()),
        None => mount.source.clone(),
    }
}

/// The paths on the host that a service needs.
#[derive(Debug, Clone, Copy)]
pub struct ServicePaths<'a> {
    /// Its root file system.
    pub rootfs: &'a Path,
    /// Its own directory, which survives a restart.
    pub state: &'a Path,
    /// The engine's own directory.
    pub engine: &'a Path,
}

/// Makes the specification. `exists` reports whether the host has a path. Optional mounts and devices
/// that the host lacks are left out.
///
/// # Errors
/// [`EngineError::Invalid`]: the service has an invalid value.
pub fn container(
    service: &ServiceSpec,
    paths: ServicePaths<'_>,
    fingerprint: &str,
    exists: impl Fn(&str) -> bool,
) -> Result<ContainerSpec, EngineError> {
    let (command, args) = service
        .command
        .split_first()
        .ok_or_else(|| EngineError::Invalid("command: no command specified".to_owned()))?;
    let root = RootSpec::System {
        path: paths.rootfs.to_owned(),
        read_only: true,
    };
    let mut spec = ContainerSpec::new(root, command);
    spec.process.args = args.to_vec();
    spec.process.env = service
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    spec.labels = [(FINGERPRINT.to_owned(), fingerprint.to_owned())].into();
    spec.namespaces.network = network(&service.network)?;
    if spec.namespaces.network == NetworkMode::Host {
        spec.names.hostname = HostName::OfMachine;
    }
    spec.mounts = mounts(service, paths, &exists);
    spec.devices = service
        .devices
        .iter()
        .filter(|path| exists(path))
        .map(|path| DeviceSpec {
            source: path.into(),
            target: path.into(),
            access: DeviceAccess {
                read: true,
                write: true,
                make_node: false,
            },
        })
        .collect();
    let capabilities = service.capabilities.iter().map(|name| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    });
    spec.security.capabilities = CapabilitySet::Only(capabilities.collect::<BTreeSet<_>>());
    spec.security.no_new_privileges = true;
    spec.restart = RestartPolicy::Always;
    spec.limits.memory.limit = service.resources.memory.filter(|bytes| *bytes > 0);
    spec.limits.pids = match service.resources.pids {
        None => PidsLimit::NotGiven,
        Some(0 | -1) => PidsLimit::Unlimited,
        Some(number) => PidsLimit::AtMost(u64::try_from(number).map_err(|_| {
            EngineError::Invalid(format!("pids: {number}: must be -1, 0 or greater"))
        })?),
    };
    Ok(spec)
}

fn network(name: &str) -> Result<NetworkMode, EngineError> {
    match name {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        other => Err(EngineError::Invalid(format!(
            "network: {other:?}: expected none or host"
        ))),
    }
}

fn mounts(
    service: &ServiceSpec,
    paths: ServicePaths<'_>,
    exists: &impl Fn(&str) -> bool,
) -> Vec<MountSpec> {
    let binds = service
        .mounts
        .iter()
        .map(|mount| (mount, PathBuf::from(source(mount, paths.state))))
        .filter(|(mount, source)| !mount.optional || exists(&source.to_string_lossy()))
        .map(|(mount, source)| MountSpec {
            target: mount.target.clone().into(),
            kind: MountKind::Bind(BindMount {
                propagation: usual_propagation(&source, paths.engine),
                source,
                create_source: false,
                recursive: true,
                read_only: match mount.writable {
                    true => ReadOnly::No,
                    false => ReadOnly::Recursive,
                },
                mapped: false,
            }),
        });
    let scratch = SCRATCH.iter().map(|path| MountSpec {
        target: path.into(),
        kind: MountKind::Tmpfs(TmpfsMount {
            options: ["noexec", "nosuid", "nodev", "mode=755"]
                .map(str::to_owned)
                .into(),
            read_only: false,
        }),
    });
    let mut mounts: Vec<_> = binds.chain(scratch).collect();
    // Parents before their children.
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::{Confinement, Propagation};

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
        memory = 8000000
        pids = 5
    "#;

    #[test]
    fn a_service_has_what_it_lists_and_no_more() {
        let spec: ServiceSpec = toml::from_str(TEXT).unwrap();
        let paths = ServicePaths {
            rootfs: Path::new("/usr/r.erofs"),
            state: Path::new("/var/s/time"),
            engine: Path::new("/var"),
        };
        let made = container(&spec, paths, "f", |path| path == "/dev/there").unwrap();
        let root = RootSpec::System {
            path: "/usr/r.erofs".into(),
            read_only: true,
        };
        assert_eq!(made.root, root);
        assert_eq!(made.process.command, "/bin/d");
        assert_eq!(made.process.args, ["-n"]);
        assert_eq!(made.process.env, ["A=b"]);
        let security = &made.security;
        assert_eq!(security.confinement, Confinement::Confined);
        assert!(security.no_new_privileges);
        let only = CapabilitySet::Only(["SYS_TIME".to_owned()].into());
        assert_eq!(security.capabilities, only);
        assert_eq!(made.namespaces.network, NetworkMode::Host);
        assert_eq!(made.restart, RestartPolicy::Always);
        let targets: Vec<_> = made.mounts.iter().map(|mount| &mount.target).collect();
        assert_eq!(targets, ["/data", "/run", "/tmp"].map(Path::new).each_ref());
        let MountKind::Bind(bind) = &made.mounts[0].kind else {
            panic!("{:?}", made.mounts);
        };
        assert_eq!(bind.source, Path::new("/var/s/time/data"));
        assert_eq!(bind.read_only, ReadOnly::No);
        assert_eq!(bind.propagation, Propagation::RecursiveSlave);
        assert_eq!(made.devices.len(), 1);
        assert_eq!(made.limits.memory.limit, Some(8_000_000));
        assert_eq!(made.limits.pids, PidsLimit::AtMost(5));
        hostd_containers::check(&made, paths.engine).unwrap();
        let mut other = spec;
        "bridged".clone_into(&mut other.network);
        let error = container(&other, paths, "f", |_| true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("bridged"), "{error}");
    }
}
