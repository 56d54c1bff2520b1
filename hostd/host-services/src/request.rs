//! The container that a service becomes. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostd_containers::{is_capability, merge_environment, usual_propagation};
use keelson_model::host::{ServiceConfig, ServiceHealth, ServiceMount};
use keelson_model::spec::{
    AppArmor, BindMount, CapabilitySet, ContainerSpec, DeviceAccess, DeviceSpec, HealthCheck,
    LogMarks, LogSpec, MountKind, MountSpec, NamespaceMode, NetworkMode, PidsLimit, ReadOnly,
    RestartPolicy, TmpfsMount,
};

use crate::definition::{Definition, DefinitionError};
use crate::image::ServiceImage;

/// Label with the fingerprint of what a container was made from.
pub const FINGERPRINT: &str = "io.keelson.service.fingerprint";

/// Microseconds of the period in which processor time is counted.
const CPU_PERIOD: u32 = 100_000;

/// The path on the host of a mount's source.
pub fn source(mount: &ServiceMount, state: &Path) -> String {
    match mount.source.strip_prefix("{state}") {
        Some(rest) => format!("{}{rest}", state.display()),
        None => mount.source.clone(),
    }
}

/// What a container is made from beside its definition.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// Its root file system, and what the image says.
    pub image: &'a ServiceImage,
    /// Its own directory, which survives a restart.
    pub state: &'a Path,
    /// The engine's own directory.
    pub engine: &'a Path,
    /// Whether the host has AppArmor.
    pub apparmor: bool,
    /// Changes with everything from which the container is made.
    pub fingerprint: &'a str,
}

/// Makes the specification of service `name`. `exists` reports whether the host has a path. Optional
/// mounts, and devices, that the host lacks are left out.
///
/// # Errors
/// The definition is wrong. The text names file, field and remedy.
pub fn container(
    name: &str,
    definition: &Definition,
    ground: Ground<'_>,
    exists: impl Fn(&str) -> bool,
) -> Result<ContainerSpec, DefinitionError> {
    let config = &definition.config;
    let command = match config.command.is_empty() {
        true => &ground.image.command,
        false => &config.command,
    };
    let (program, args) = command.split_first().ok_or_else(|| {
        definition.error(
            name,
            "command",
            "neither the configuration nor the image names a command",
            r#"use a list of a program and its arguments, such as ["/usr/bin/prog", "-f"]"#,
        )
    })?;
    let mut spec = ContainerSpec::new(ground.image.root.clone(), program);
    spec.process.args = args.to_vec();
    spec.process.env.clone_from(&ground.image.environment);
    let own = config.environment.iter();
    let own: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
    merge_environment(&mut spec.process.env, &own);
    spec.process.init = config.init.unwrap_or_default();
    let user = config.user.as_ref().unwrap_or(&ground.image.user);
    spec.process.user.clone_from(user);
    if !ground.image.working_directory.is_empty() {
        let directory = &ground.image.working_directory;
        spec.process.working_directory.clone_from(directory);
    }
    spec.labels = [(FINGERPRINT.to_owned(), ground.fingerprint.to_owned())].into();
    spec.namespaces.network = network(name, definition)?;
    if spec.namespaces.network == NetworkMode::Host {
        // It sees changes of the machine's name, too.
        spec.namespaces.uts = NamespaceMode::Host;
    }
    spec.mounts = mounts(name, definition, ground, &exists)?;
    spec.devices = devices(config, &exists);
    spec.security.capabilities = CapabilitySet::Only(capabilities(name, definition)?);
    spec.security.no_new_privileges = !config.new_privileges.unwrap_or_default();
    if let Some(profile) = config.apparmor.as_ref().filter(|_| ground.apparmor) {
        spec.security.apparmor = AppArmor::Named(profile.clone());
    }
    // The supervisor starts services again, in their order.
    spec.restart = RestartPolicy::Never;
    limits(config, &mut spec);
    spec.log = LogSpec::Files {
        max_size: config.log.max_size,
        max_files: config.log.max_files,
        marks: LogMarks::default(),
    };
    spec.health = health(&config.health);
    Ok(spec)
}

fn network(name: &str, definition: &Definition) -> Result<NetworkMode, DefinitionError> {
    match definition.config.network.as_deref() {
        None | Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some("bridge") => Ok(NetworkMode::Bridge),
        Some(other) => Err(definition.error(
            name,
            "network",
            format!("{other:?} is no network of a service"),
            r#"use "none", "host" or "bridge""#,
        )),
    }
}

fn capabilities(name: &str, definition: &Definition) -> Result<BTreeSet<String>, DefinitionError> {
    let names = definition.config.capabilities.iter().enumerate();
    names
        .map(|(index, capability)| {
            let short = capability.strip_prefix("CAP_").unwrap_or(capability);
            match is_capability(short) {
                true => Ok(short.to_owned()),
                false => Err(definition.error(
                    name,
                    &format!("capabilities[{index}]"),
                    format!("{capability:?} is no capability"),
                    r#"use names of capabilities(7), such as ["CAP_NET_BIND_SERVICE"]"#,
                )),
            }
        })
        .collect()
}

fn devices(config: &ServiceConfig, exists: &impl Fn(&str) -> bool) -> Vec<DeviceSpec> {
    let paths = config.devices.iter().filter(|path| exists(path));
    paths
        .map(|path| DeviceSpec {
            source: path.into(),
            target: path.into(),
            access: DeviceAccess {
                read: true,
                write: true,
                make_node: false,
            },
        })
        .collect()
}

fn limits(config: &ServiceConfig, spec: &mut ContainerSpec) {
    let resources = &config.resources;
    spec.limits.memory.limit = resources.memory.filter(|bytes| *bytes > 0);
    spec.limits.pids = match resources.pids.map(u64::try_from) {
        None => PidsLimit::NotGiven,
        Some(Ok(number)) if number > 0 => PidsLimit::AtMost(number),
        Some(_) => PidsLimit::Unlimited,
    };
    if let Some(millicpus) = resources.millicpus.filter(|millicpus| *millicpus > 0) {
        spec.limits.cpu.period = Some(CPU_PERIOD.into());
        spec.limits.cpu.quota = Some(i64::from(CPU_PERIOD / 1000) * i64::from(millicpus));
    }
}

fn health(health: &ServiceHealth) -> Option<HealthCheck> {
    let seconds = |value: Option<u32>, usual| Duration::from_secs(value.unwrap_or(usual).into());
    (!health.command.is_empty()).then(|| HealthCheck {
        command: health.command.clone(),
        interval: seconds(health.interval, 30),
        timeout: seconds(health.timeout, 30),
        retries: health.retries.unwrap_or(3),
        start_period: seconds(health.start_period, 0),
        // Others may wait for its health.
        start_interval: Duration::from_secs(1),
    })
}

/// Directories that every service has for itself and that are empty at its start, with their mount
/// options.
fn scratch(config: &ServiceConfig) -> [(&'static str, Vec<&'static str>); 2] {
    let mut tmp = vec!["nosuid", "nodev", "mode=1777"];
    if !config.writable.unwrap_or_default() {
        tmp.push("noexec");
    }
    let run = vec!["nosuid", "nodev", "mode=755", "noexec"];
    [("/run", run), ("/tmp", tmp)]
}

fn mounts(
    name: &str,
    definition: &Definition,
    ground: Ground<'_>,
    exists: &impl Fn(&str) -> bool,
) -> Result<Vec<MountSpec>, DefinitionError> {
    let config = &definition.config;
    let mut mounts: Vec<MountSpec> = Vec::new();
    for (index, mount) in config.mounts.iter().enumerate() {
        let source = PathBuf::from(source(mount, ground.state));
        let missing = !exists(&source.to_string_lossy());
        if mount.optional && missing {
            continue;
        }
        if missing && !mount.create && !mount.source.starts_with("{state}") {
            return Err(definition.error(
                name,
                &format!("mounts[{index}].source"),
                format!("the host has no {}", source.display()),
                "make it, or write optional = true or create = true",
            ));
        }
        if mounts
            .iter()
            .any(|other| other.target == Path::new(&mount.target))
        {
            return Err(definition.error(
                name,
                &format!("mounts[{index}].target"),
                format!("{} is mounted twice", mount.target),
                "leave one of them out",
            ));
        }
        mounts.push(MountSpec {
            target: mount.target.clone().into(),
            kind: MountKind::Bind(BindMount {
                propagation: usual_propagation(&source, ground.engine),
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
    }
    for (path, options) in scratch(config) {
        if mounts.iter().all(|mount| mount.target != Path::new(path)) {
            mounts.push(MountSpec {
                target: path.into(),
                kind: MountKind::Tmpfs(TmpfsMount {
                    options: options.into_iter().map(str::to_owned).collect(),
                    read_only: false,
                }),
            });
        }
    }
    // Parents before their children.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

#[cfg(test)]
mod tests;
