//! Limits that no Linux with cgroup v2 has. Docker drops them there with a warning, or refuses them;
//! clients know the words.

use hostd_containers::HostFacts;

use super::invalid;
use crate::error::ApiError;
use crate::wire::HostConfig;

/// Takes out of a request what has no effect here, with a warning for each.
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
    if !facts.controllers.iter().any(|known| known == "io") {
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
        // It is what clients send for "not given".
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

/// Takes out the limits of block devices.
fn discard_io(host: &mut HostConfig, warnings: &mut Vec<String>) {
    let mut warn = |what: &str, discarded: &str| {
        warnings.push(format!(
            "Your kernel does not support {what} or the cgroup is not mounted. {discarded} discarded."
        ));
    };
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
    fn what_this_kernel_has_not_is_discarded_with_a_warning() {
        for (member, value) in [
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
    fn a_host_with_the_controller_keeps_what_is_right() {
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
    fn what_no_linux_has_is_refused() {
        for (member, value) in [
            ("MemorySwappiness", json!(101)),
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
