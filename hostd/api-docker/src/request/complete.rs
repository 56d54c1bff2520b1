//! Adds what a client left out, from the image or from Docker's defaults.

use hostd_containers::merge_environment;
use hostd_images::ContainerDefaults;
use keelson_model::spec::{Hiding, SHM_SIZE};

use super::refuse::refuse_host;
use super::spec::Words;
use super::{Ground, connections, discard, health, invalid, namespaces, ports, size};
use crate::error::ApiError;
use crate::offers::{CGROUP_NAMESPACE, LOG_DRIVER, Runtimes};
use crate::wire::{Config, CreateBody, HostConfig, NetworkingConfig};

/// A request with everything in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Completed {
    pub(super) config: Config,
    pub(super) host: HostConfig,
    pub(super) networking: NetworkingConfig,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Completed {
    /// The request without the warnings.
    pub(super) fn words(&self) -> Words<'_> {
        Words {
            config: &self.config,
            host: &self.host,
            networking: &self.networking,
            command: &self.command,
            args: &self.args,
        }
    }
}

/// Completes a request, and refuses what the engine can't express.
pub(super) fn complete(
    id: &str,
    body: CreateBody,
    image: Option<&ContainerDefaults>,
    ground: Ground<'_>,
) -> Result<Completed, ApiError> {
    let CreateBody {
        mut config,
        host_config: mut host,
        networking_config: networking,
    } = body;
    let mut warnings = Vec::new();
    // First, because Docker has special texts for options that a shared namespace forbids.
    namespaces::check(&config, &host)?;
    connections::check(&host, &networking)?;
    ports::expose(&mut config, &host)?;
    discard::discard(&mut host, ground.facts, &mut warnings)?;
    refuse_host(&host)?;
    size::check(&config, &host)?;
    health::check(&config)?;
    if let Some(image) = image {
        merge_image(&mut config, image, &mut warnings)?;
    }
    complete_host(&mut host, &config, ground, &mut warnings)?;
    config.working_dir = clean_path(&config.working_dir);
    complete_host_name(id, &mut config, &host, ground.machine)?;
    check_names_of_parts(&host, ground.runtimes)?;
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    let mut words = config
        .entrypoint
        .iter()
        .flatten()
        .chain(config.cmd.iter().flatten());
    let Some(command) = words.next().filter(|word| !word.is_empty()).cloned() else {
        return invalid("no command specified");
    };
    let args = words.cloned().collect();
    Ok(Completed {
        config,
        host,
        networking,
        command,
        args,
        warnings,
    })
}

/// An absolute path without `.`, `..` and double slashes. Other paths stay as they are and are refused
/// later.
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
) -> Result<(), ApiError> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.iter().flatten().map(|(port, _)| port) {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    let mut environment = Vec::new();
    merge_environment(&mut environment, image.env.as_deref().unwrap_or_default());
    // Removals (`NAME` alone) are kept, because they may concern variables that the engine sets.
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
    health::merge_image(config, image, warnings);
    Ok(())
}

fn complete_host(
    host: &mut HostConfig,
    config: &Config,
    ground: Ground<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    if config.network_disabled {
        "none".clone_into(&mut host.network_mode);
    }
    if matches!(host.network_mode.as_str(), "" | "default") {
        ground.default_network.clone_into(&mut host.network_mode);
    }
    if host.network_mode == "host" && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        host.port_bindings.clear();
        host.publish_all_ports = false;
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "private" | "host") {
        return invalid(format!(
            "invalid cgroup namespace mode: {}",
            host.cgroupns_mode
        ));
    }
    if host.cgroupns_mode.is_empty() {
        CGROUP_NAMESPACE.clone_into(&mut host.cgroupns_mode);
    }
    if host.ipc_mode.is_empty() {
        "private".clone_into(&mut host.ipc_mode);
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if host.shm_size == 0 {
        host.shm_size = SHM_SIZE.cast_signed();
    }
    for request in host.device_requests.iter_mut().flatten() {
        // Clients are shown lists.
        request.device_ids.get_or_insert_default();
        request.capabilities.get_or_insert_default();
    }
    if host.runtime.is_empty() {
        ground.runtimes.usual().clone_into(&mut host.runtime);
    }
    if host.log_config.r#type.is_empty() {
        LOG_DRIVER.clone_into(&mut host.log_config.r#type);
    }
    if host.restart_policy.name.is_empty() {
        "no".clone_into(&mut host.restart_policy.name);
    }
    if host.masked_paths.is_none() {
        let mut masked = texts(&Hiding::usual().masked);
        masked.extend(texts(&ground.facts.thermal));
        host.masked_paths = Some(masked);
    }
    if host.readonly_paths.is_none() {
        host.readonly_paths = Some(texts(&Hiding::usual().read_only));
    }
    Ok(())
}

fn texts(paths: &[std::path::PathBuf]) -> Vec<String> {
    let texts = paths.iter().map(|path| path.to_string_lossy().into_owned());
    texts.collect()
}

/// Sets the default host name of the container, or checks the one in the request.
fn complete_host_name(
    id: &str,
    config: &mut Config,
    host: &HostConfig,
    machine: &str,
) -> Result<(), ApiError> {
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
    if !given {
        let shared = host.network_mode == "host" || host.uts_mode == "host";
        let own = id.get(..12).unwrap_or(id);
        config.hostname = if shared { machine } else { own }.to_owned();
    }
    Ok(())
}

/// Names of parts of which there is only one.
fn check_names_of_parts(host: &HostConfig, runtimes: &Runtimes) -> Result<(), ApiError> {
    if !runtimes.has(&host.runtime) {
        return invalid(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return invalid(format!(
            "invalid isolation '{}' on linux: \"default\" is the only one",
            host.isolation
        ));
    }
    Ok(())
}
