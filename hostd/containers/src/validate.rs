//! From what a client asks for to what is kept: completed from the image and with defaults,
//! checked, and with everything refused that Keelson does not have. Pure: no I/O.

mod log;
mod refuse;
pub(crate) mod size;
mod update;

use hostd_images::ContainerDefaults;
use keelson_model::container::{Config, HostConfig, NetworkingConfig};
use keelson_model::host::EngineConfig;

use crate::host::HostFacts;
use crate::spec::{self, mounts};
use crate::{EngineError, Signal};

pub(crate) use log::log_limits;
use refuse::{is_unset, refuse_config, refuse_endpoint, refuse_host};
pub(crate) use update::update;

/// Names of the only runtime; the first is the default. The others are those that clients of
/// Docker give to its own.
pub const RUNTIMES: [&str; 4] = [
    "keelson",
    "keelson-runtime",
    "runc",
    "io.containerd.runc.v2",
];
/// The logging driver of containers that ask for none.
pub const LOG_DRIVER: &str = "local";

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

fn invalid<T>(message: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(message.into()))
}

/// The host names of containers that are not given one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostNames<'a> {
    /// With a network or host name of their own: the beginning of their identifier.
    pub(crate) own: &'a str,
    /// With the machine's.
    pub(crate) machine: &'a str,
}

/// Completes and checks a request.
pub(crate) fn complete(
    names: HostNames<'_>,
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
    size::check(&config, &host)?;
    if let Some(image) = image {
        merge_image(&mut config, image, &mut warnings)?;
    }
    complete_host(&mut host, &config, networking, &mut warnings)?;
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    config.working_dir = clean_path(&config.working_dir);
    check_config(&config)?;
    if config.hostname.is_empty() {
        let shared = host.network_mode == "host" || host.uts_mode == "host";
        config.hostname = if shared { names.machine } else { names.own }.to_owned();
    }
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

/// An absolute path without `.`, `..` and double slashes; others as they are, to be refused.
fn clean_path(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn merge_image(
    config: &mut Config,
    image: &ContainerDefaults,
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.iter().flatten().map(|(port, _)| port) {
        config.exposed_ports.entry(port.clone()).or_default();
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
    for path in image.volumes.iter().flatten().map(|(path, _)| path) {
        config.volumes.entry(path.clone()).or_default();
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
        "private".clone_into(&mut host.cgroupns_mode);
    }
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if !matches!(
        host.ipc_mode.as_str(),
        "private" | "shareable" | "none" | "host"
    ) {
        return invalid(format!("invalid IPC mode: {}", host.ipc_mode));
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if host.shm_size == 0 {
        host.shm_size = spec::DEFAULT_SHM;
    }
    if host.runtime.is_empty() {
        RUNTIMES[0].clone_into(&mut host.runtime);
    }
    match host.log_config.r#type.as_str() {
        "" => LOG_DRIVER.clone_into(&mut host.log_config.r#type),
        "json-file" => warnings.push(format!(
            "logging driver json-file: the log is kept in the format of driver {LOG_DRIVER}, with the same options; docker logs reads it"
        )),
        _ => {}
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
        refuse_endpoint(name, settings)?;
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
    let given = !config.hostname.is_empty();
    if given && (config.hostname.len() > 63 || !config.hostname.split('.').all(label_ok)) {
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
    if !RUNTIMES.contains(&host.runtime.as_str()) {
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
    for name in host.annotations.keys() {
        // By those of our own the engine tells the runtime how to isolate the container.
        if name.is_empty() || name.starts_with("io.keelson.") {
            return invalid(format!(
                "invalid annotation {name:?}: the name is empty or reserved"
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

#[cfg(test)]
mod tests;
