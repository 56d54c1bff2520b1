//! A completed request in the engine's terms.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hostd_containers::Signal;
use keelson_model::spec::{
    Confinement, ContainerSpec, Hiding, Patience, ProcessSpec, RestartPolicy, RootSpec,
    SecuritySpec, Stdin, StopSpec, SystemCallFilter, TerminalSpec,
};

use super::{
    Ground, capabilities, connections, devices, health, images, invalid, limits, log, mounts,
    names, namespaces, order, ports, security, volumes,
};
use crate::error::ApiError;
use crate::offers;
use crate::wire::{self, Config, HostConfig, NetworkingConfig};

/// A completed request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) config: &'a Config,
    pub(super) host: &'a HostConfig,
    pub(super) networking: &'a NetworkingConfig,
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
}

/// Translates a completed request for the container `id`. The engine checks the result.
pub(super) fn spec(
    id: &str,
    words: &Words<'_>,
    root: RootSpec,
    ground: Ground<'_>,
) -> Result<ContainerSpec, ApiError> {
    let Words { config, host, .. } = *words;
    let limits = limits::limits(host)?;
    let security = security_spec(host, ground)?;
    let log = log::log(&host.log_config, config)?;
    let restart = restart_policy(&host.restart_policy)?;
    let namespaces = namespaces::namespaces(host, ground.users)?;
    let names = names::names(id, config, host)?;
    let devices = host.devices.iter().flatten().map(devices::device);
    let devices = devices.collect::<Result<_, _>>()?;
    let requests = host.device_requests.as_deref().unwrap_or_default();
    let described_devices = devices::described(requests)?;
    let rules = host.device_cgroup_rules.iter().flatten();
    let device_rules = rules.map(|text| devices::rule(text));
    let device_rules = device_rules.collect::<Result<_, _>>()?;
    let mounts = mounts::parse(host, ground.engine)?;
    let images = images::parse(host)?;
    let volumes = volumes::parse(config, host, &mounts, &images)?;
    Ok(ContainerSpec {
        root: with_access(root, host.readonly_rootfs),
        runtime: offers::runtime(&host.runtime),
        process: process(words, ground),
        labels: config.labels.clone(),
        annotations: host.annotations.clone(),
        namespaces,
        names,
        mounts,
        volumes,
        images,
        anonymous_volumes: Vec::new(),
        devices,
        described_devices,
        device_rules,
        exposed_ports: config
            .exposed_ports
            .keys()
            // Text that is no port exposes nothing. It is shown unchanged.
            .filter_map(|text| ports::port(text))
            .collect(),
        connections: connections::connections(config, host, words.networking)?,
        published_ports: ports::published(host)?,
        publish_exposed: host.publish_all_ports,
        security,
        limits,
        cgroup_parent: cgroup_parent(&host.cgroup_parent)?,
        sysctls: host.sysctls.clone(),
        log,
        restart,
        start_order: order::order(config, host),
        auto_remove: host.auto_remove,
        stop: stop(config)?,
        health: health::health(config)?,
    })
}

fn with_access(root: RootSpec, read_only: bool) -> RootSpec {
    match root {
        RootSpec::Image { id, name, .. } => RootSpec::Image {
            id,
            name,
            read_only,
        },
        RootSpec::System { path, lower, .. } => RootSpec::System {
            path,
            lower,
            read_only,
        },
    }
}

fn process(words: &Words<'_>, ground: Ground<'_>) -> ProcessSpec {
    let Words { config, host, .. } = *words;
    let clamped = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let [rows, columns] = host.console_size.map(clamped);
    ProcessSpec {
        command: words.command.to_owned(),
        args: words.args.to_vec(),
        env: config.env.clone(),
        user: config.user.clone(),
        groups: host.group_add.clone().unwrap_or_default(),
        working_directory: match config.working_dir.as_str() {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
        terminal: config.tty.then_some(TerminalSpec {
            size: (rows > 0 && columns > 0).then_some((rows, columns)),
        }),
        stdin: match (config.open_stdin, config.stdin_once) {
            (false, _) => Stdin::Closed,
            (true, false) => Stdin::Open,
            (true, true) => Stdin::OpenOnce,
        },
        // In another pid namespace there is a first process already.
        init: host.pid_mode.is_empty() && host.init.unwrap_or(ground.init),
    }
}

fn security_spec(host: &HostConfig, ground: Ground<'_>) -> Result<SecuritySpec, ApiError> {
    let capabilities = capabilities::resolve(
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
        host.privileged,
        ground.facts.capabilities,
    )?;
    let names = capabilities::names(&capabilities, ground.facts.capabilities);
    let options = security::parse(host.security_opt.as_deref().unwrap_or_default(), &names)?;
    let paths = |list: &Option<Vec<String>>| -> Vec<PathBuf> {
        list.iter().flatten().map(PathBuf::from).collect()
    };
    Ok(SecuritySpec {
        confinement: match host.privileged {
            true => Confinement::Privileged,
            false => Confinement::Confined,
        },
        capabilities,
        system_calls: match options.system_calls {
            SystemCallFilter::BuiltIn if host.privileged => SystemCallFilter::Unconfined,
            filter => filter,
        },
        apparmor: options.apparmor,
        no_new_privileges: options.no_new_privileges,
        hiding: match host.privileged || options.unmask {
            true => Hiding::default(),
            false => Hiding {
                masked: paths(&host.masked_paths),
                read_only: paths(&host.readonly_paths),
            },
        },
    })
}

/// The parent of a container's cgroup.
fn cgroup_parent(text: &str) -> Result<Option<PathBuf>, ApiError> {
    let path = Path::new(text);
    let leads_up = path.components().any(|part| part == Component::ParentDir);
    // As a systemd unit it would mean something else.
    if leads_up || text.contains(['\0', '\n', ':']) || text.ends_with(".slice") {
        return invalid(format!(
            "invalid CgroupParent {text:?}: use the path of a cgroup, such as \"/batch\""
        ));
    }
    Ok((!text.is_empty()).then(|| path.components().collect()))
}

/// The restart policy.
pub(super) fn restart_policy(policy: &wire::RestartPolicy) -> Result<RestartPolicy, ApiError> {
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        "" | "no" => Ok(RestartPolicy::Never),
        "always" => Ok(RestartPolicy::Always),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        "on-failure" => match policy.maximum_retry_count {
            0 => Ok(RestartPolicy::OnFailure { attempts: None }),
            count @ 1.. => Ok(RestartPolicy::OnFailure {
                attempts: Some(u32::try_from(count).unwrap_or(u32::MAX)),
            }),
            _ => invalid("invalid restart policy: maximum retry count cannot be negative"),
        },
        other => invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

fn stop(config: &Config) -> Result<StopSpec, ApiError> {
    let signal = match config.stop_signal.as_str() {
        "" => None,
        text => Some(text.parse::<Signal>()?.number()),
    };
    Ok(StopSpec {
        signal,
        patience: match config.stop_timeout {
            None => Patience::OfHost,
            Some(seconds) => match u64::try_from(seconds) {
                Ok(seconds) => Patience::For(Duration::from_secs(seconds)),
                Err(_) => Patience::Forever,
            },
        },
    })
}
