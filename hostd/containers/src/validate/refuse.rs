//! Options that Keelson does not have: refused by name when a client asks for them, passed when
//! they carry the value that clients send for "not given".

use keelson_model::container::{Config, HealthConfig, HostConfig};
use serde_json::Value;

use crate::EngineError;

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

pub(super) fn refuse_config(config: &Config) -> Result<(), EngineError> {
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

pub(super) fn refuse_host(host: &HostConfig) -> Result<(), EngineError> {
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
