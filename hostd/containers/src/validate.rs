//! From what a client asks for to what is kept: completed from the image and with defaults,
//! checked, and with everything refused that Keelson does not have. Pure: no I/O.

use hostd_images::ContainerDefaults;
use keelson_model::container::{Config, HealthConfig, HostConfig, LogConfig, NetworkingConfig};
use keelson_model::host::EngineConfig;
use serde_json::Value;

use crate::host::HostFacts;
use crate::spec::{self, mounts};
use crate::{EngineError, Signal};

/// A request after validation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Completed {
    pub(crate) config: Config,
    pub(crate) host: HostConfig,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) mounts: Vec<mounts::Wanted>,
    pub(crate) volumes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// How big a log becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLimits {
    pub(crate) max_size: u64,
    pub(crate) max_files: u32,
}

fn invalid<T>(message: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(message.into()))
}

/// Completes and checks a request. `id` gives the default host name.
pub(crate) fn complete(
    id: &str,
    mut config: Config,
    mut host: HostConfig,
    networking: &NetworkingConfig,
    image: Option<&ContainerDefaults>,
    facts: &HostFacts,
    defaults: &EngineConfig,
) -> Result<Completed, EngineError> {
    let mut warnings = Vec::new();
    refuse_config(&config)?;
    refuse_host(&host)?;
    if let Some(image) = image {
        merge_image(&mut config, image, &mut warnings)?;
    }
    complete_host(&mut host, &config, networking, &mut warnings)?;
    if config.hostname.is_empty() {
        config.hostname = id.get(..12).unwrap_or(id).to_owned();
    }
    check_config(&config)?;
    check_host(&host, facts, defaults)?;
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    let mut words = config
        .entrypoint
        .iter()
        .flatten()
        .chain(config.cmd.iter().flatten());
    let Some(path) = words.next().filter(|path| !path.is_empty()).cloned() else {
        return invalid("no command specified");
    };
    let args = words.cloned().collect();
    let mounts = mounts::parse(&host)?;
    let volumes = mounts::volumes(&config, &mounts)?;
    if !volumes.is_empty() {
        warnings.push(format!(
            "volumes are not implemented: what the container writes to {} is removed together with the container",
            volumes.join(", ")
        ));
    }
    Ok(Completed {
        config,
        host,
        path,
        args,
        mounts,
        volumes,
        warnings,
    })
}

/// Whether a JSON value is what clients send for "not given".
pub(crate) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.values().all(is_unset),
    }
}

/// Names the first option that was given and is not implemented.
fn refuse(options: &[(&str, bool, &dyn std::fmt::Debug)]) -> Result<(), EngineError> {
    match options.iter().find(|(_, given, _)| *given) {
        Some((name, _, value)) => Err(EngineError::NotImplemented(format!(
            "{name} is not implemented (value {value:?})"
        ))),
        None => Ok(()),
    }
}

fn refuse_unknown(unknown: &serde_json::Map<String, Value>) -> Result<(), EngineError> {
    match unknown.iter().find(|(_, value)| !is_unset(value)) {
        Some((name, value)) => Err(EngineError::NotImplemented(format!(
            "{name} is not implemented (value {value})"
        ))),
        None => Ok(()),
    }
}

fn refuse_config(config: &Config) -> Result<(), EngineError> {
    refuse_unknown(&config.unknown)?;
    let health = config.healthcheck.as_ref().is_some_and(|health| {
        *health != HealthConfig::default() && health.test.as_slice() != ["NONE"]
    });
    refuse(&[
        ("Healthcheck", health, &config.healthcheck),
        (
            "MacAddress",
            !config.mac_address.is_empty(),
            &config.mac_address,
        ),
        ("ArgsEscaped", config.args_escaped, &config.args_escaped),
    ])
}

fn refuse_host(host: &HostConfig) -> Result<(), EngineError> {
    refuse_unknown(&host.unknown)?;
    let some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let words = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let nat = |number: i64| number != 0;
    refuse(&[
        (
            "PortBindings",
            !host.port_bindings.is_empty(),
            &host.port_bindings.keys(),
        ),
        ("PublishAllPorts", host.publish_all_ports, &true),
        (
            "VolumeDriver",
            !host.volume_driver.is_empty(),
            &host.volume_driver,
        ),
        ("VolumesFrom", words(&host.volumes_from), &host.volumes_from),
        ("Cgroup", !host.cgroup.is_empty(), &host.cgroup),
        ("Links", words(&host.links), &host.links),
        ("PidMode", !host.pid_mode.is_empty(), &host.pid_mode),
        (
            "UsernsMode",
            !matches!(host.userns_mode.as_str(), "" | "host"),
            &host.userns_mode,
        ),
        (
            "StorageOpt",
            !host.storage_opt.is_empty(),
            &host.storage_opt,
        ),
        (
            "CgroupParent",
            !host.cgroup_parent.is_empty(),
            &host.cgroup_parent,
        ),
        ("BlkioWeight", host.blkio_weight != 0, &host.blkio_weight),
        (
            "BlkioWeightDevice",
            some(&host.blkio_weight_device),
            &host.blkio_weight_device,
        ),
        (
            "BlkioDeviceReadBps",
            some(&host.blkio_device_read_bps),
            &host.blkio_device_read_bps,
        ),
        (
            "BlkioDeviceWriteBps",
            some(&host.blkio_device_write_bps),
            &host.blkio_device_write_bps,
        ),
        (
            "BlkioDeviceReadIOps",
            some(&host.blkio_device_read_iops),
            &host.blkio_device_read_iops,
        ),
        (
            "BlkioDeviceWriteIOps",
            some(&host.blkio_device_write_iops),
            &host.blkio_device_write_iops,
        ),
        (
            "CpuRealtimePeriod",
            nat(host.cpu_realtime_period),
            &host.cpu_realtime_period,
        ),
        (
            "CpuRealtimeRuntime",
            nat(host.cpu_realtime_runtime),
            &host.cpu_realtime_runtime,
        ),
        (
            "DeviceCgroupRules",
            words(&host.device_cgroup_rules),
            &host.device_cgroup_rules,
        ),
        (
            "DeviceRequests",
            some(&host.device_requests),
            &host.device_requests,
        ),
        (
            "KernelMemory",
            nat(host.kernel_memory.0),
            &host.kernel_memory.0,
        ),
        (
            "KernelMemoryTCP",
            nat(host.kernel_memory_tcp.0),
            &host.kernel_memory_tcp.0,
        ),
        (
            "MemorySwappiness",
            host.memory_swappiness.is_some_and(|value| value != -1),
            &host.memory_swappiness,
        ),
        ("OomKillDisable", host.oom_kill_disable == Some(true), &true),
        ("Init", host.init == Some(true), &true),
        ("CpuCount", nat(host.cpu_count), &host.cpu_count),
        ("CpuPercent", nat(host.cpu_percent), &host.cpu_percent),
        (
            "IOMaximumIOps",
            host.io_maximum_iops != 0,
            &host.io_maximum_iops,
        ),
        (
            "IOMaximumBandwidth",
            host.io_maximum_bandwidth != 0,
            &host.io_maximum_bandwidth,
        ),
        (
            "Annotations",
            !host.annotations.is_empty(),
            &host.annotations,
        ),
        (
            "NetworkMode",
            !matches!(
                host.network_mode.as_str(),
                "" | "default" | "bridge" | "none" | "host"
            ),
            &host.network_mode,
        ),
        (
            "IpcMode",
            !matches!(host.ipc_mode.as_str(), "" | "private" | "host"),
            &host.ipc_mode,
        ),
    ])?;
    for entry in host.extra_hosts.iter().flatten() {
        if entry.ends_with("host-gateway") {
            return Err(EngineError::NotImplemented(format!(
                "host-gateway is not implemented (ExtraHosts {entry:?})"
            )));
        }
    }
    Ok(())
}

fn merge_image(
    config: &mut Config,
    image: &ContainerDefaults,
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for (port, value) in image.exposed_ports.iter().flatten() {
        config
            .exposed_ports
            .entry(port.clone())
            .or_insert_with(|| value.clone());
    }
    let mut environment = Vec::new();
    spec::merge_environment(&mut environment, image.env.as_deref().unwrap_or_default());
    // Removals (`NAME` alone) are kept: they concern the engine's own variables, too.
    for entry in &config.env {
        let name = entry.split('=').next().unwrap_or_default();
        environment.retain(|other| other.split('=').next() != Some(name));
        environment.push(entry.clone());
    }
    config.env = environment;
    for (name, value) in image.labels.iter().flatten() {
        config
            .labels
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    for (path, value) in image.volumes.iter().flatten() {
        config
            .volumes
            .entry(path.clone())
            .or_insert_with(|| value.clone());
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    let disabled = config
        .healthcheck
        .as_ref()
        .is_some_and(|health| health.test.as_slice() == ["NONE"]);
    if let (Some(health), false) = (&image.healthcheck, disabled)
        && !is_unset(health)
    {
        warnings.push(
            "the image's HEALTHCHECK is not run: health checks are not implemented".to_owned(),
        );
    }
    Ok(())
}

fn complete_host(
    host: &mut HostConfig,
    config: &Config,
    networking: &NetworkingConfig,
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    check_networking(host, networking)?;
    if config.network_disabled {
        "none".clone_into(&mut host.network_mode);
    }
    if matches!(host.network_mode.as_str(), "" | "default" | "bridge") {
        "bridge".clone_into(&mut host.network_mode);
        warnings.push(
            "bridge networks are not implemented: the container has a network of its own with loopback only; use --network host to reach others"
                .to_owned(),
        );
    }
    if host.network_mode == "host"
        && let Some(name) = host.sysctls.keys().find(|name| name.starts_with("net."))
    {
        return invalid(format!(
            "sysctl \"{name}\" not allowed in host network namespace"
        ));
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        ));
    }
    if host.cgroupns_mode.is_empty() {
        let mode = if host.privileged { "host" } else { "private" };
        mode.clone_into(&mut host.cgroupns_mode);
    }
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if host.shm_size == 0 {
        host.shm_size = spec::DEFAULT_SHM;
    }
    if host.runtime.is_empty() {
        "keelson".clone_into(&mut host.runtime);
    }
    if host.log_config.r#type.is_empty() {
        "json-file".clone_into(&mut host.log_config.r#type);
    }
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
    if host.masked_paths.is_none() {
        host.masked_paths = Some(spec::MASKED_PATHS.map(str::to_owned).into());
    }
    if host.readonly_paths.is_none() {
        host.readonly_paths = Some(spec::READONLY_PATHS.map(str::to_owned).into());
    }
    Ok(())
}

/// End points other than the one that the network mode implies, and settings of it.
fn check_networking(host: &HostConfig, networking: &NetworkingConfig) -> Result<(), EngineError> {
    let plain = |name: &str| match name {
        "" | "default" => "bridge".to_owned(),
        other => other.to_owned(),
    };
    for (name, settings) in &networking.endpoints_config {
        if plain(name) != plain(&host.network_mode) {
            return Err(EngineError::NotImplemented(format!(
                "connecting a container to network {name:?} is not implemented"
            )));
        }
        for (option, value) in settings.as_object().into_iter().flatten() {
            if !is_unset(value) {
                return Err(EngineError::NotImplemented(format!(
                    "{option} of network {name:?} is not implemented (value {value})"
                )));
            }
        }
    }
    Ok(())
}

fn check_config(config: &Config) -> Result<(), EngineError> {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // The kernel takes at most 64 bytes; the rules are those of RFC 1123.
    if config.hostname.len() > 63 || !config.hostname.split('.').all(label_ok) {
        return invalid(format!("invalid hostname format: {}", config.hostname));
    }
    if config.domainname.len() > 64 || config.domainname.bytes().any(|byte| byte <= b' ') {
        return invalid(format!("invalid domainname: {}", config.domainname));
    }
    for entry in &config.env {
        if entry.is_empty() || entry.starts_with('=') || entry.contains('\0') {
            return invalid(format!("invalid environment variable: {entry}"));
        }
    }
    let words = config
        .entrypoint
        .iter()
        .flatten()
        .chain(config.cmd.iter().flatten());
    if words.clone().any(|word| word.contains('\0')) {
        return invalid("the command contains a zero byte");
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if !config.stop_signal.is_empty() {
        config.stop_signal.parse::<Signal>()?;
    }
    Ok(())
}

fn check_host(
    host: &HostConfig,
    facts: &HostFacts,
    defaults: &EngineConfig,
) -> Result<(), EngineError> {
    spec::resources::check(host, facts)?;
    let set = spec::capabilities::resolve(
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
        host.privileged,
        facts.capabilities,
    )?;
    spec::security::parse(
        host.security_opt.as_deref().unwrap_or_default(),
        &spec::capabilities::names(set),
    )?;
    log_limits(&host.log_config, defaults)?;
    check_restart(host)?;
    if host.runtime != "keelson" {
        return invalid(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return invalid(format!(
            "invalid isolation '{}' on linux: \"default\" is the only one",
            host.isolation
        ));
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return invalid(format!("invalid UTS mode: {}", host.uts_mode));
    }
    for name in host.sysctls.keys() {
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
    for server in host.dns.iter().flatten() {
        if server.parse::<std::net::IpAddr>().is_err() {
            return invalid(format!(
                "bad parameter: IP address is not correctly formatted: {server}"
            ));
        }
    }
    for text in host.dns_search.iter().chain(&host.dns_options).flatten() {
        if text.is_empty() || text.bytes().any(|byte| byte <= b' ') {
            return invalid(format!("invalid DNS search domain or option: {text:?}"));
        }
    }
    for entry in host.extra_hosts.iter().flatten() {
        crate::files::parse_extra_host(entry)?;
    }
    for device in host.devices.iter().flatten() {
        crate::devices::check(device)?;
    }
    let paths = host.masked_paths.iter().chain(&host.readonly_paths);
    if let Some(path) = paths.flatten().find(|path| !path.starts_with('/')) {
        return invalid(format!(
            "masked and read-only paths must be absolute: {path}"
        ));
    }
    Ok(())
}

fn check_restart(host: &HostConfig) -> Result<(), EngineError> {
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            return invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            );
        }
        "on-failure" if policy.maximum_retry_count < 0 => {
            return invalid("invalid restart policy: maximum retry count cannot be negative");
        }
        "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    if host.auto_remove && policy.name != "no" {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    Ok(())
}

/// The limits of a container's log.
pub(crate) fn log_limits(
    config: &LogConfig,
    defaults: &EngineConfig,
) -> Result<LogLimits, EngineError> {
    if !matches!(config.r#type.as_str(), "" | "json-file" | "local") {
        return Err(EngineError::NotImplemented(format!(
            "logging driver {:?} is not implemented",
            config.r#type
        )));
    }
    let mut limits = LogLimits {
        max_size: defaults.log_max_size,
        max_files: defaults.log_max_files.max(1),
    };
    for (name, value) in &config.config {
        match name.as_str() {
            "max-size" => limits.max_size = parse_size(value)?,
            "max-file" => match value.parse() {
                Ok(number) if number > 0 => limits.max_files = number,
                _ => return invalid(format!("invalid value for log-opt max-file: {value}")),
            },
            "mode" if value == "blocking" => {}
            _ => {
                return Err(EngineError::NotImplemented(format!(
                    "log-opt {name} is not implemented (value {value:?})"
                )));
            }
        }
    }
    Ok(limits)
}

/// `10m`, `64k`, `1g`, `4096`, `-1` for no limit.
fn parse_size(text: &str) -> Result<u64, EngineError> {
    if text == "-1" {
        return Ok(u64::MAX);
    }
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match plain.as_bytes().last() {
        Some(b'k') => (plain.trim_end_matches('k'), 1 << 10),
        Some(b'm') => (plain.trim_end_matches('m'), 1 << 20),
        Some(b'g') => (plain.trim_end_matches('g'), 1 << 30),
        _ => (plain, 1_u64),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|size| *size > 0)
        .ok_or_else(|| EngineError::Invalid(format!("invalid size: '{text}'")))
}

#[cfg(test)]
mod tests;
