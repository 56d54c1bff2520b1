//! Whether a specification is one that can be kept and run: the rules that hold for every guest of
//! the engine, whoever made it. They are asked when a container is made or changed, and when one is
//! read from disk. Pure: no I/O.

use std::path::{Component, Path};
use std::time::Duration;

use keelson_model::limits;
use keelson_model::spec::{
    AppArmor, CapabilitySet, Confinement, ContainerSpec, CpuLimits, HealthCheck, HostName,
    IoLimits, Limits, LogSpec, MemoryLimits, MemorySwap, MountKind, MountSpec, NamespaceMode,
    NetworkMode, PidsLimit, ProcessSpec, Propagation, RestartPolicy, SystemCallFilter,
};

use super::available::numbers;
use super::capabilities::is_capability;
use super::mounts::is_of_engine;
use crate::apparmor;
use crate::tag::check_tag;
use crate::{EngineError, Signal};

/// The least memory limit, in bytes: nothing starts with less.
const MIN_MEMORY: u64 = 6 << 20;

fn invalid<T>(message: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(message.into()))
}

/// Checks a specification against itself. `engine` is the engine's own directory.
///
/// # Errors
/// [`EngineError::Invalid`], naming the first value that contradicts another or is out of range.
pub fn check(spec: &ContainerSpec, engine: &Path) -> Result<(), EngineError> {
    check_process(&spec.process)?;
    check_names(spec)?;
    check_init(spec)?;
    check_mounts(&spec.mounts, engine)?;
    check_volumes(spec)?;
    check_devices(spec)?;
    check_security(spec)?;
    check_users(spec)?;
    check_limits(&spec.limits)?;
    check_sysctls(spec)?;
    check_cgroup_parent(spec.cgroup_parent.as_deref())?;
    check_log(&spec.log)?;
    check_health(spec.health.as_ref())?;
    if spec.auto_remove && spec.restart != RestartPolicy::Never {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    spec.stop.signal.map(Signal::try_from).transpose()?;
    if let Some(port) = spec.exposed_ports.iter().find(|port| port.number == 0) {
        return invalid(format!("invalid port: 0/{}", port.protocol.as_str()));
    }
    Ok(())
}

/// The shortest time of a health check.
const MIN_CHECK_TIME: Duration = Duration::from_millis(1);

fn check_health(health: Option<&HealthCheck>) -> Result<(), EngineError> {
    let Some(health) = health else {
        return Ok(());
    };
    if health.command.first().is_none_or(String::is_empty) {
        return invalid("the health check has no command");
    }
    check_strings("Healthcheck", &health.command)?;
    if health.command.iter().any(|word| word.contains('\0')) {
        return invalid("the command of the health check contains a zero byte");
    }
    for (name, time) in [
        ("interval", health.interval),
        ("timeout", health.timeout),
        ("start interval", health.start_interval),
    ] {
        if time < MIN_CHECK_TIME {
            return invalid(format!("the {name} of the health check is less than 1ms"));
        }
    }
    if health.retries == 0 {
        return invalid("the health check's retries are 0, at least 1 is needed");
    }
    Ok(())
}

/// Checks the length of what a process is to be given.
///
/// # Errors
/// [`EngineError::Invalid`], naming the field, when the kernel takes no string so long.
pub fn check_strings<'a>(
    field: &str,
    strings: impl IntoIterator<Item = &'a String>,
) -> Result<(), EngineError> {
    match strings.into_iter().find(|text| text.len() > limits::STRING) {
        None => Ok(()),
        Some(text) => invalid(format!(
            "{field}: the string that begins with {:?} has {} bytes, the kernel takes at most {}",
            limits::shortened(text, 40),
            text.len(),
            limits::STRING
        )),
    }
}

fn check_process(process: &ProcessSpec) -> Result<(), EngineError> {
    if process.command.is_empty() {
        return invalid("no command specified");
    }
    let words = || [&process.command].into_iter().chain(&process.args);
    check_strings("Cmd", words())?;
    check_strings("Env", &process.env)?;
    if words().any(|word| word.contains('\0')) {
        return invalid("the command contains a zero byte");
    }
    for entry in &process.env {
        if entry.is_empty() || entry.starts_with('=') || entry.contains('\0') {
            return invalid(format!("invalid environment variable: {entry}"));
        }
    }
    if !process.working_directory.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            process.working_directory
        ));
    }
    Ok(())
}

/// An init must be the first process of its pid namespace.
fn check_init(spec: &ContainerSpec) -> Result<(), EngineError> {
    let namespaces = &spec.namespaces;
    let own = namespaces.pid == NamespaceMode::Private && namespaces.donors.pid.is_none();
    match spec.process.init && !own {
        true => invalid("an init needs a pid namespace of the container's own"),
        false => Ok(()),
    }
}

fn check_names(spec: &ContainerSpec) -> Result<(), EngineError> {
    let names = &spec.names;
    // The kernel takes at most 64 bytes of either.
    let unfit = |name: &str| name.len() > 64 || name.bytes().any(|byte| byte <= b' ');
    if let HostName::Given(name) = &names.hostname
        && (name.is_empty() || unfit(name))
    {
        return invalid(format!("invalid hostname format: {name}"));
    }
    if unfit(&names.domain) {
        return invalid(format!("invalid domainname: {}", names.domain));
    }
    for text in names.dns_search.iter().chain(&names.dns_options) {
        if text.is_empty() || text.bytes().any(|byte| byte <= b' ') {
            return invalid(format!("invalid DNS search domain or option: {text:?}"));
        }
    }
    for entry in &names.hosts {
        if entry.name.is_empty() || entry.name.bytes().any(|byte| byte <= b' ') {
            return invalid(format!("bad format for add-host: {:?}", entry.name));
        }
    }
    Ok(())
}

/// Whether a path is absolute, not `/`, and without `.`, `..` and double slashes.
fn is_clean(path: &Path) -> bool {
    let mut clean = Path::new("/").to_owned();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => clean.push(name),
            _ => return false,
        }
    }
    path.is_absolute() && clean.as_os_str() == path.as_os_str() && path != Path::new("/")
}

fn check_mounts(mounts: &[MountSpec], engine: &Path) -> Result<(), EngineError> {
    for (index, mount) in mounts.iter().enumerate() {
        let target = &mount.target;
        if !is_clean(target) {
            return invalid(format!(
                "invalid mount: the target {target:?} is not a clean absolute path"
            ));
        }
        let mut earlier = mounts.iter().take(index).map(|other| &other.target);
        if earlier.clone().any(|other| other == target) {
            return invalid(format!("Duplicate mount point: {}", target.display()));
        }
        if let Some(other) = earlier.find(|other| other.starts_with(target)) {
            return invalid(format!(
                "invalid mount: {} would be hidden by {}, which comes after it",
                other.display(),
                target.display()
            ));
        }
        if let MountKind::Bind(bind) = &mount.kind {
            let source = &bind.source;
            if !source.is_absolute() {
                return invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    source.display()
                ));
            }
            let follows = matches!(
                bind.propagation,
                Propagation::RecursiveSlave | Propagation::RecursiveShared
            );
            // See `usual_propagation`.
            if is_of_engine(source, engine) && !follows {
                return invalid(format!(
                    "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the daemon root, daemon root: {:?}, bind mount source: {:?}, propagation: {:?}",
                    engine.display().to_string(),
                    source.display().to_string(),
                    bind.propagation.as_str(),
                ));
            }
        }
    }
    Ok(())
}

fn check_volumes(spec: &ContainerSpec) -> Result<(), EngineError> {
    for mount in &spec.volumes {
        if let Some(path) = &mount.subpath
            && !path
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
        {
            return invalid(format!(
                "invalid mount config for type \"volume\": subpath must be a relative path within the volume: {path:?}"
            ));
        }
        if !(mount.anonymous && mount.name.is_empty())
            && let Err(reason) = hostd_volumes::check_foreign(&mount.name)
        {
            return invalid(format!("create {}: {reason}", mount.name));
        }
    }
    for mount in &spec.images {
        let mut parts = mount.subpath.iter().flat_map(|path| path.components());
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return invalid(format!(
                "invalid mount config for type \"image\": subpath must be a relative path within the volume: {:?}",
                mount.subpath
            ));
        }
    }
    let volumes = spec.volumes.iter().map(|mount| &mount.target);
    let images = spec.images.iter().map(|mount| &mount.target);
    let targets: Vec<_> = volumes
        .chain(images)
        .chain(&spec.anonymous_volumes)
        .collect();
    for (index, &target) in targets.iter().enumerate() {
        if targets.iter().take(index).any(|other| *other == target) {
            return invalid(format!("Duplicate mount point: {}", target.display()));
        }
        if !is_clean(target) {
            return invalid(format!(
                "invalid volume: the target {target:?} is not a clean absolute path"
            ));
        }
        if spec.mounts.iter().any(|mount| mount.target == *target) {
            return invalid(format!("Duplicate mount point: {}", target.display()));
        }
    }
    Ok(())
}

fn check_devices(spec: &ContainerSpec) -> Result<(), EngineError> {
    for path in spec
        .devices
        .iter()
        .flat_map(|device| [&device.source, &device.target])
    {
        if !path.is_absolute() {
            return invalid(format!(
                "invalid device: {:?} is not an absolute path",
                path.display().to_string()
            ));
        }
    }
    Ok(())
}

fn check_security(spec: &ContainerSpec) -> Result<(), EngineError> {
    let security = &spec.security;
    if let CapabilitySet::Only(names) = &security.capabilities
        && let Some(name) = names.iter().find(|name| !is_capability(name))
    {
        return invalid(format!("unknown capability: {name:?}"));
    }
    if let SystemCallFilter::Profile(profile) = &security.system_calls
        && !profile.is_object()
    {
        return invalid("the profile of system calls is not an object");
    }
    if let AppArmor::Named(name) = &security.apparmor
        && !apparmor::is_name(name)
    {
        return invalid(format!("invalid AppArmor profile: {name:?}"));
    }
    let hiding = &security.hiding;
    if let Some(path) = hiding
        .masked
        .iter()
        .chain(&hiding.read_only)
        .find(|path| !path.is_absolute())
    {
        return invalid(format!(
            "masked and read-only paths must be absolute: {}",
            path.display()
        ));
    }
    for name in spec.annotations.keys() {
        // By those of our own the engine tells the runtime how to isolate the container.
        if name.is_empty() || name.starts_with("io.keelson.") {
            return invalid(format!(
                "invalid annotation {name:?}: the name is empty or reserved"
            ));
        }
    }
    Ok(())
}

/// A container with a user namespace can't use objects that belong to the host's users.
fn check_users(spec: &ContainerSpec) -> Result<(), EngineError> {
    let namespaces = &spec.namespaces;
    let Some(users) = namespaces.users else {
        return Ok(());
    };
    if !users.is_valid() {
        return invalid(format!(
            "invalid range of users: {} from {} on",
            users.size, users.base
        ));
    }
    if spec.security.confinement == Confinement::Privileged {
        return invalid(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        );
    }
    if namespaces.network == NetworkMode::Host {
        return invalid(
            "cannot share the host's network namespace when user namespaces are enabled",
        );
    }
    if namespaces.pid == NamespaceMode::Host {
        return invalid("cannot share the host PID namespace when user namespaces are enabled");
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), EngineError> {
    check_memory(&limits.memory)?;
    check_cpu(&limits.cpu)?;
    check_io(&limits.io)?;
    // The kernel's numbers have a sign.
    let too_large = |number: u64| i64::try_from(number).is_err();
    if limits.shm_size == 0 || too_large(limits.shm_size) {
        return invalid(format!("invalid size of /dev/shm: {}", limits.shm_size));
    }
    if matches!(limits.pids, PidsLimit::AtMost(number) if number == 0 || too_large(number)) {
        return invalid("invalid pids limit: must be -1, 0 or greater");
    }
    for (index, limit) in limits.rlimits.iter().enumerate() {
        let name = limit.kind.as_str();
        if limit.soft > limit.hard {
            let shown = |number| match number {
                u64::MAX => "-1".to_owned(),
                number => number.to_string(),
            };
            return invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                shown(limit.soft),
                shown(limit.hard)
            ));
        }
        let mut earlier = limits.rlimits.iter().take(index);
        if earlier.any(|other| other.kind == limit.kind) {
            return invalid(format!("invalid ulimit {name}: it is given twice"));
        }
    }
    Ok(())
}

fn check_memory(memory: &MemoryLimits) -> Result<(), EngineError> {
    let too_little = |bytes: Option<u64>| {
        bytes.is_some_and(|bytes| bytes < MIN_MEMORY || i64::try_from(bytes).is_err())
    };
    if too_little(memory.limit) {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if let MemorySwap::Together(together) = memory.swap {
        let Some(limit) = memory.limit else {
            return invalid(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            );
        };
        if together < limit || i64::try_from(together).is_err() {
            return invalid(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            );
        }
    }
    if too_little(memory.reservation) {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if let (Some(limit), Some(reservation)) = (memory.limit, memory.reservation)
        && reservation > limit
    {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if !(-1000..=1000).contains(&memory.oom_score_adjustment) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            memory.oom_score_adjustment
        ));
    }
    Ok(())
}

fn check_io(io: &IoLimits) -> Result<(), EngineError> {
    let weights = io.devices.iter().filter_map(|device| device.weight);
    let mut weights = weights.chain(io.weight);
    if let Some(weight) = weights.find(|weight| !(10..=1000).contains(weight)) {
        return invalid(format!(
            "Range of blkio weight is from 10 to 1000 (it is {weight})"
        ));
    }
    for (index, device) in io.devices.iter().enumerate() {
        let node = &device.node;
        let mut earlier = io.devices.iter().take(index);
        if !node.is_absolute() || earlier.any(|other| other.node == *node) {
            return invalid(format!(
                "limits of the block device {}: its path must be absolute, and given once",
                node.display()
            ));
        }
    }
    Ok(())
}

fn check_cpu(cpu: &CpuLimits) -> Result<(), EngineError> {
    if cpu
        .period
        .is_some_and(|period| !(1_000..=1_000_000).contains(&period))
    {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if cpu.quota.is_some_and(|quota| (0..1_000).contains(&quota)) {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (what, list) in [("cpus", &cpu.cpus), ("mems", &cpu.memory_nodes)] {
        if !list.is_empty() && numbers(list).is_none() {
            return invalid(format!("Invalid value {list} for cpuset {what}"));
        }
    }
    Ok(())
}

/// Whether a path stays below its start.
fn check_cgroup_parent(parent: Option<&Path>) -> Result<(), EngineError> {
    let Some(parent) = parent else {
        return Ok(());
    };
    let is_plain = |part: Component<'_>| match part {
        Component::RootDir => true,
        // The kernel's own files have a dot in their names.
        Component::Normal(name) => name.len() <= 255 && !name.as_encoded_bytes().contains(&0),
        _ => false,
    };
    match parent.components().all(is_plain) && parent.components().count() <= 16 {
        true => Ok(()),
        false => invalid(format!(
            "the parent cgroup {} is no plain path of at most 16 names",
            parent.display()
        )),
    }
}

fn check_sysctls(spec: &ContainerSpec) -> Result<(), EngineError> {
    for name in spec.sysctls.keys() {
        if name.starts_with("net.") && spec.namespaces.network == NetworkMode::Host {
            return invalid(format!(
                "sysctl \"{name}\" not allowed in host network namespace"
            ));
        }
        let namespaced = ["kernel.msg", "kernel.shm", "fs.mqueue.", "net."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name == "kernel.sem";
        if !namespaced || name.contains(['/', '\0']) || name.contains("..") {
            return invalid(format!(
                "sysctl '{name}' is not allowed: it is not in a namespace"
            ));
        }
    }
    Ok(())
}

fn check_log(log: &LogSpec) -> Result<(), EngineError> {
    if let Some(marks) = log.marks() {
        check_tag(&marks.tag)?;
    }
    let LogSpec::Files {
        max_size,
        max_files,
        ..
    } = log
    else {
        return Ok(());
    };
    if *max_size == Some(0) {
        return invalid("invalid size of a log file: 0");
    }
    if *max_files == Some(0) {
        return invalid("invalid number of log files: 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
