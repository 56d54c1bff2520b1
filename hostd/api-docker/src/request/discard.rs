//! Discards limits that cgroup v2 does not have, or for which this host has no controller. Docker
//! discards them with a warning, or refuses them; clients know the texts. Values that are wrong on
//! every host are still refused.

use hostd_containers::HostFacts;

use super::invalid;
use crate::error::ApiError;
use crate::wire::HostConfig;

/// The smallest memory limit, in bytes.
const MIN_MEMORY: i64 = 6 << 20;

/// Removes options without an effect on this host from a request, with a warning for each.
pub(crate) fn discard(
    host: &mut HostConfig,
    facts: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return invalid(
            "Your kernel does not support CPU real-time scheduler (CpuRealtimePeriod, CpuRealtimeRuntime): cgroup v2 does not have it",
        );
    }
    let lacks = |controller: &str| !facts.controllers.iter().any(|known| known == controller);
    if lacks("memory") {
        discard_memory(host, warnings)?;
    }
    if lacks("cpu") {
        discard_cpu(host, warnings)?;
    }
    if lacks("cpuset") && !(host.cpuset_cpus.is_empty() && host.cpuset_mems.is_empty()) {
        host.cpuset_cpus.clear();
        host.cpuset_mems.clear();
        warn_of(warnings, "cpuset", "Cpuset");
    }
    if lacks("pids") {
        let limit = host.pids_limit.take();
        if limit.is_some_and(|limit| limit > 0) {
            warn_of(warnings, "PIDs limit capabilities", "PIDs limit");
        } else if limit.is_some_and(|limit| limit < -1) {
            return invalid("invalid pids limit: must be -1, 0 or greater");
        }
    }
    if lacks("io") {
        discard_io(host, warnings);
    }
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return invalid(format!(
            "Range of blkio weight is from 10 to 1000 (BlkioWeight {})",
            host.blkio_weight
        ));
    }
    let mut warn = |text: &str| warnings.push(text.to_owned());
    match host.memory_swappiness {
        // Clients send this value for "not given".
        None | Some(-1) => {}
        Some(value) if !(0..=100).contains(&value) => {
            return invalid(format!(
                "Invalid value: {value}, valid memory swappiness range is 0-100"
            ));
        }
        Some(_) => {
            host.memory_swappiness = None;
            warn(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
            );
        }
    }
    if host.kernel_memory.0 != 0 || host.kernel_memory_tcp.0 != 0 {
        host.kernel_memory.0 = 0;
        host.kernel_memory_tcp.0 = 0;
        warn(
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        );
    }
    if host.oom_kill_disable == Some(true) {
        host.oom_kill_disable = None;
        warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
    }
    if host.cpu_percent > 0 {
        host.cpu_percent = 0;
        warn("linux does not support CPU percent. Percent discarded.");
    }
    if host.io_maximum_iops != 0 || host.io_maximum_bandwidth != 0 {
        return invalid(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps (IOMaximumBandwidth, IOMaximumIOps)",
        );
    }
    if !host.storage_opt.is_empty() {
        return invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        );
    }
    Ok(())
}

/// Warns about a limit that the host does not support.
fn warn_of(warnings: &mut Vec<String>, what: &str, discarded: &str) {
    warnings.push(format!(
        "Your kernel does not support {what} or the cgroup is not mounted. {discarded} discarded."
    ));
}

/// Removes the limits of memory.
fn discard_memory(host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 {
        host.memory = 0;
        host.memory_swap = -1;
        warn_of(warnings, "memory limit capabilities", "Limitation");
    }
    if host.memory_reservation > 0 {
        host.memory_reservation = 0;
        warn_of(warnings, "memory soft limit capabilities", "Limitation");
    }
    Ok(())
}

/// Removes the limits of processors.
fn discard_cpu(host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<(), ApiError> {
    if host.nano_cpus > 0 {
        // There is no other way to limit this, so Docker refuses the request.
        return invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        );
    }
    if host.cpu_shares > 0 {
        host.cpu_shares = 0;
        warn_of(warnings, "CPU shares", "Shares");
    }
    if host.cpu_period != 0 || host.cpu_quota != 0 {
        (host.cpu_period, host.cpu_quota) = (0, 0);
        warnings.push(
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
                .to_owned(),
        );
    }
    Ok(())
}

/// Removes the limits of block devices.
fn discard_io(host: &mut HostConfig, warnings: &mut Vec<String>) {
    let mut warn = |what: &str, discarded: &str| warn_of(warnings, what, discarded);
    if host.blkio_weight > 0 {
        host.blkio_weight = 0;
        warn("Block I/O weight", "Weight");
    }
    let weights = &mut host.blkio_weight_device;
    if weights.as_ref().is_some_and(|list| !list.is_empty()) {
        *weights = None;
        warn("Block I/O weight_device", "Weight-device");
    }
    for (list, what, discarded) in [
        (
            &mut host.blkio_device_read_bps,
            "BPS Block I/O read limit",
            "Block I/O BPS read limit",
        ),
        (
            &mut host.blkio_device_write_bps,
            "BPS Block I/O write limit",
            "Block I/O BPS write limit",
        ),
        (
            &mut host.blkio_device_read_iops,
            "IOPS Block read limit",
            "Block I/O IOPS read limit",
        ),
        (
            &mut host.blkio_device_write_iops,
            "IOPS Block write limit",
            "Block I/O IOPS write limit",
        ),
    ] {
        if list.as_ref().is_some_and(|list| !list.is_empty()) {
            *list = None;
            warn(what, discarded);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unsupported_limits_are_discarded_with_a_warning() {
        for (member, value) in [
            ("MemoryReservation", json!(64 << 20)),
            ("CpuShares", json!(512)),
            ("CpuPeriod", json!(50_000)),
            ("CpuQuota", json!(50_000)),
            ("CpusetCpus", json!("0")),
            ("CpusetMems", json!("0")),
            ("PidsLimit", json!(9)),
            ("MemorySwappiness", json!(60)),
            ("KernelMemory", json!(1 << 30)),
            ("KernelMemoryTCP", json!(1 << 30)),
            ("OomKillDisable", json!(true)),
            ("CpuPercent", json!(5)),
            ("BlkioWeight", json!(5)),
            ("BlkioWeightDevice", json!([{"Path": "/dev/a"}])),
            ("BlkioDeviceReadBps", json!([{"Path": "/dev/a", "Rate": 1}])),
            (
                "BlkioDeviceWriteBps",
                json!([{"Path": "/dev/a", "Rate": 1}]),
            ),
            (
                "BlkioDeviceReadIOps",
                json!([{"Path": "/dev/a", "Rate": 1}]),
            ),
            (
                "BlkioDeviceWriteIOps",
                json!([{"Path": "/dev/a", "Rate": 1}]),
            ),
        ] {
            let mut host: HostConfig = serde_json::from_value(json!({member: value})).unwrap();
            let mut warnings = Vec::new();
            discard(&mut host, &HostFacts::default(), &mut warnings).unwrap();
            assert_eq!(host, HostConfig::default(), "{member}");
            assert_eq!(warnings.len(), 1, "{member}");
            assert!(warnings[0].ends_with("discarded."), "{warnings:?}");
        }
    }

    #[test]
    fn without_a_memory_limit_the_swap_limit_is_discarded_too() {
        let read = |value| serde_json::from_value::<HostConfig>(value).unwrap();
        let mut host = read(json!({"Memory": 64 << 20, "MemorySwap": 65 << 20}));
        let mut warnings = Vec::new();
        discard(&mut host, &HostFacts::default(), &mut warnings).unwrap();
        assert_eq!(host, read(json!({"MemorySwap": -1})));
        let wanted = "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.";
        assert_eq!(warnings, [wanted]);
        // A value without an effect needs no warning.
        for value in [json!({"PidsLimit": 0}), json!({"PidsLimit": -1})] {
            let mut warnings = Vec::new();
            discard(&mut read(value), &HostFacts::default(), &mut warnings).unwrap();
            assert_eq!(warnings, [""; 0]);
        }
    }

    #[test]
    fn a_host_with_the_controller_keeps_valid_limits() {
        let facts = HostFacts {
            controllers: vec!["io".to_owned()],
            ..HostFacts::default()
        };
        for (weight, right) in [
            (0, true),
            (9, false),
            (10, true),
            (1000, true),
            (1001, false),
        ] {
            let mut host = HostConfig {
                blkio_weight: weight,
                ..HostConfig::default()
            };
            let mut warnings = Vec::new();
            let done = discard(&mut host, &facts, &mut warnings);
            assert_eq!(done.is_ok(), right, "{weight}");
            assert_eq!((host.blkio_weight, warnings.len()), (weight, 0));
        }
    }

    #[test]
    fn limits_that_no_linux_has_are_refused() {
        for (member, value) in [
            ("MemorySwappiness", json!(101)),
            ("Memory", json!(1024)),
            ("NanoCpus", json!(500_000_000)),
            ("PidsLimit", json!(-2)),
            ("IOMaximumIOps", json!(5)),
            ("IOMaximumBandwidth", json!(5)),
            ("StorageOpt", json!({"size": "1g"})),
            ("CpuRealtimePeriod", json!(5)),
            ("CpuRealtimeRuntime", json!(5)),
        ] {
            let mut host: HostConfig = serde_json::from_value(json!({member: value})).unwrap();
            let done = discard(&mut host, &HostFacts::default(), &mut Vec::new());
            assert!(done.is_err(), "{member}");
        }
    }
}
