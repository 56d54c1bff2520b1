//! `POST /containers/{id}/update`: which members may change, and how they change a container.

use hostd_containers::{HostFacts, Shown, Snapshot, SpecChange};
use keelson_model::error::ErrorKind;
use keelson_model::spec::ContainerSpec;

use super::endpoints::link;
use super::refuse::{any, is_unset, refuse_host};
use super::spec::restart_policy;
use super::{invalid, limits, shown};
use crate::error::ApiError;
use crate::wire::HostConfig;

/// The requested change, after [`super::discard`]. A member with its zero value changes nothing, as
/// everywhere in Docker's API.
pub(crate) fn update(
    container: &Snapshot,
    request: &HostConfig,
    facts: &HostFacts,
) -> Result<SpecChange, ApiError> {
    let mut host = shown::host_config(container)?;
    let mut spec = ContainerSpec::clone(&container.spec);
    let limits = change(&mut host, &mut spec, request, facts)?;
    Ok(SpecChange {
        spec,
        shown: Some(shown::shown(&shown::config(container)?, &host)?),
        limits,
    })
}

/// What is shown of a container without a link.
pub(crate) fn without_link(container: &Snapshot, alias: &str) -> Result<Option<Shown>, ApiError> {
    let mut host = shown::host_config(container)?;
    if let Some(links) = &mut host.links {
        links.retain(|text| link(text).is_ok_and(|link| link.alias != alias));
    }
    let config = shown::config(container)?;
    Ok(Some(shown::shown(&config, &host)?))
}

/// Applies the change to both forms. Returns whether it has limits for running processes.
fn change(
    host: &mut HostConfig,
    spec: &mut ContainerSpec,
    request: &HostConfig,
    facts: &HostFacts,
) -> Result<bool, ApiError> {
    refuse_others(request)?;
    check_conflicts(host, request)?;
    merge(host, request);
    refuse_host(host)?;
    spec.limits = limits::limits(host)?;
    limits::check_processors(host, facts)?;
    if !request.restart_policy.name.is_empty() {
        if host.auto_remove && request.restart_policy.name != "no" {
            return Err(ApiError::new(
                ErrorKind::Conflict,
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = request.restart_policy.clone();
        spec.restart = restart_policy(&host.restart_policy)?;
    } else if request.restart_policy.maximum_retry_count != 0 {
        return invalid("RestartPolicy.MaximumRetryCount needs RestartPolicy.Name");
    }
    Ok(has_limits(request))
}

/// Whether the request has a limit.
fn has_limits(request: &HostConfig) -> bool {
    let mut host = HostConfig::default();
    merge(&mut host, request);
    host.ulimits = None;
    host != HostConfig::default()
}

/// Refuses, by name, members that can't be changed.
fn refuse_others(request: &HostConfig) -> Result<(), ApiError> {
    refuse_host(request)?;
    let mut changeable = HostConfig {
        restart_policy: request.restart_policy.clone(),
        memory_swappiness: request.memory_swappiness,
        ..HostConfig::default()
    };
    merge(&mut changeable, request);
    let json = |host: &HostConfig| {
        serde_json::to_value(host)
            .map_err(|e| ApiError::new(ErrorKind::Internal, format!("update: {e}")))
    };
    let (given, allowed) = (json(request)?, json(&changeable)?);
    match given
        .as_object()
        .into_iter()
        .flatten()
        .find(|(name, value)| allowed.get(name.as_str()) != Some(*value) && !is_unset(value))
    {
        Some((name, value)) => Err(ApiError::not_built(format!(
            "{name} of an existing container cannot be changed (value {value})"
        ))),
        None => Ok(()),
    }
}

/// Checks older values that the change does not name but contradicts.
fn check_conflicts(before: &HostConfig, request: &HostConfig) -> Result<(), ApiError> {
    let set = |name: &str, other: &str| {
        Err(ApiError::new(
            ErrorKind::Conflict,
            format!(
                "Conflicting options: {name} cannot be updated as {other} has already been set"
            ),
        ))
    };
    if request.nano_cpus > 0 && before.cpu_period > 0 {
        return set("Nano CPUs", "CPU Period");
    }
    if request.nano_cpus > 0 && before.cpu_quota > 0 {
        return set("Nano CPUs", "CPU Quota");
    }
    if request.cpu_period > 0 && before.nano_cpus > 0 {
        return set("CPU Period", "NanoCPUs");
    }
    if request.cpu_quota > 0 && before.nano_cpus > 0 {
        return set("CPU Quota", "NanoCPUs");
    }
    if request.memory > 0
        && request.memory_swap == 0
        && before.memory_swap > 0
        && request.memory > before.memory_swap
    {
        return Err(ApiError::new(
            ErrorKind::Conflict,
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
                .to_owned(),
        ));
    }
    Ok(())
}

fn merge(host: &mut HostConfig, request: &HostConfig) {
    for (value, given) in [
        (&mut host.memory, request.memory),
        (&mut host.memory_swap, request.memory_swap),
        (&mut host.memory_reservation, request.memory_reservation),
        (&mut host.nano_cpus, request.nano_cpus),
        (&mut host.cpu_shares, request.cpu_shares),
        (&mut host.cpu_period, request.cpu_period),
        (&mut host.cpu_quota, request.cpu_quota),
    ] {
        if given != 0 {
            *value = given;
        }
    }
    for (value, given) in [
        (&mut host.cpuset_cpus, &request.cpuset_cpus),
        (&mut host.cpuset_mems, &request.cpuset_mems),
    ] {
        if !given.is_empty() {
            value.clone_from(given);
        }
    }
    if request.blkio_weight != 0 {
        host.blkio_weight = request.blkio_weight;
    }
    if any(&request.blkio_weight_device) {
        host.blkio_weight_device
            .clone_from(&request.blkio_weight_device);
    }
    for (list, given) in [
        (
            &mut host.blkio_device_read_bps,
            &request.blkio_device_read_bps,
        ),
        (
            &mut host.blkio_device_write_bps,
            &request.blkio_device_write_bps,
        ),
        (
            &mut host.blkio_device_read_iops,
            &request.blkio_device_read_iops,
        ),
        (
            &mut host.blkio_device_write_iops,
            &request.blkio_device_write_iops,
        ),
    ] {
        if any(given) {
            list.clone_from(given);
        }
    }
    if request.pids_limit.is_some() {
        host.pids_limit = request.pids_limit;
    }
    // As with Docker, they apply to processes that start from now on.
    if request
        .ulimits
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        host.ulimits.clone_from(&request.ulimits);
    }
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::{
        DeviceIo, MemorySwap, PidsLimit, RestartPolicy, RlimitKind, RootSpec,
    };
    use serde_json::{Value, json};

    use super::*;

    struct Updated {
        host: HostConfig,
        spec: ContainerSpec,
        limits: bool,
    }

    fn updated(before: Value, request: Value) -> Result<Updated, ApiError> {
        let read = |json| serde_json::from_value::<HostConfig>(json).unwrap();
        let mut host = read(before);
        let root = RootSpec::Image {
            id: String::new(),
            name: String::new(),
            read_only: false,
        };
        let mut spec = ContainerSpec::new(root, "sh");
        spec.auto_remove = host.auto_remove;
        let facts = HostFacts {
            cpus: 2,
            ..HostFacts::default()
        };
        let limits = change(&mut host, &mut spec, &read(request), &facts)?;
        hostd_containers::check(&spec, std::path::Path::new("/e"))?;
        Ok(Updated { host, spec, limits })
    }

    #[test]
    fn what_is_not_given_stays() {
        let update = updated(
            json!({"Memory": 64 << 20, "CpuShares": 512, "Privileged": true}),
            json!({"Memory": 32 << 20, "PidsLimit": 9, "MemorySwappiness": -1}),
        )
        .unwrap();
        assert_eq!(update.host.memory, 32 << 20);
        assert_eq!(update.host.cpu_shares, 512);
        assert!(update.host.privileged);
        assert!(update.limits);
        let limits = update.spec.limits;
        assert_eq!(limits.memory.limit, Some(32 << 20));
        assert_eq!(limits.cpu.shares, Some(512));
        assert_eq!(limits.pids, PidsLimit::AtMost(9));
    }

    #[test]
    fn limits_are_lifted() {
        let update = updated(
            json!({"PidsLimit": 9, "CpuQuota": 5000, "Memory": 64 << 20, "MemorySwap": 65 << 20}),
            json!({"PidsLimit": 0, "CpuQuota": -1, "MemorySwap": -1}),
        )
        .unwrap();
        assert!(update.limits);
        let limits = update.spec.limits;
        assert_eq!(limits.memory.limit, Some(64 << 20));
        assert_eq!(limits.memory.swap, MemorySwap::Unlimited);
        assert_eq!(limits.cpu.quota, Some(-1));
        assert_eq!(limits.pids, PidsLimit::Unlimited);
    }

    #[test]
    fn a_list_of_block_devices_replaces_the_earlier_one() {
        let list = |path: &str, rate: u64| json!([{"Path": path, "Rate": rate}]);
        let update = updated(
            json!({"BlkioDeviceReadBps": list("/dev/a", 5), "BlkioDeviceWriteBps": list("/dev/a", 6)}),
            json!({"BlkioDeviceReadBps": list("/dev/b", 7), "BlkioDeviceWriteIOps": []}),
        )
        .unwrap();
        assert!(update.limits);
        let shown = serde_json::to_value(&update.host).unwrap();
        assert_eq!(shown["BlkioDeviceReadBps"], list("/dev/b", 7));
        let rates = |device: &DeviceIo| (device.read_bytes, device.written_bytes);
        let devices: Vec<_> = update.spec.limits.io.devices.iter().map(rates).collect();
        assert_eq!(devices, [(Some(7), None), (None, Some(6))]);
    }

    #[test]
    fn ulimits_are_for_the_next_start() {
        let limits = json!([{"Name": "nofile", "Soft": 10, "Hard": 20}]);
        let update = updated(json!({}), json!({"Ulimits": limits})).unwrap();
        assert!(!update.limits);
        assert_eq!(serde_json::to_value(&update.host.ulimits).unwrap(), limits);
        assert_eq!(update.spec.limits.rlimits[0].kind, RlimitKind::Nofile);
    }

    #[test]
    fn a_restart_policy_needs_no_limits() {
        let update = updated(
            json!({"RestartPolicy": {"Name": "no"}}),
            json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
        )
        .unwrap();
        assert!(!update.limits);
        assert_eq!(update.host.restart_policy.name, "on-failure");
        let wanted = RestartPolicy::OnFailure { attempts: Some(3) };
        assert_eq!(update.spec.restart, wanted);
    }

    #[test]
    fn contradictions_are_named() {
        for (before, request, word) in [
            (
                json!({"CpuPeriod": 50_000}),
                json!({"NanoCpus": 500_000_000}),
                "CPU Period",
            ),
            (
                json!({"NanoCpus": 500_000_000}),
                json!({"CpuQuota": 50_000}),
                "NanoCPUs",
            ),
            (
                json!({"Memory": 64 << 20, "MemorySwap": 64 << 20}),
                json!({"Memory": 128 << 20}),
                "memoryswap",
            ),
            (
                json!({"AutoRemove": true}),
                json!({"RestartPolicy": {"Name": "always"}}),
                "AutoRemove",
            ),
            (
                json!({}),
                json!({"RestartPolicy": {"Name": "sometimes"}}),
                "sometimes",
            ),
            (
                json!({}),
                json!({"RestartPolicy": {"MaximumRetryCount": 2}}),
                "MaximumRetryCount",
            ),
            (json!({}), json!({"Memory": 1024}), "memory"),
            (
                json!({}),
                json!({"BlkioDeviceReadBps": [{"Path": "a", "Rate": 1}]}),
                "BlkioDeviceReadBps",
            ),
            (json!({}), json!({"Privileged": true}), "Privileged"),
            (json!({}), json!({"Binds": ["/a:/b"]}), "Binds"),
        ] {
            let message = updated(before, request).err().unwrap().to_string();
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
