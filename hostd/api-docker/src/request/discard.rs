//! Limits that no Linux with cgroup v2 has. Docker drops them there with a warning, or refuses them;
//! clients know the words.

use super::invalid;
use crate::error::ApiError;
use crate::wire::HostConfig;

/// Takes out of a request what has no effect here, with a warning for each.
pub(crate) fn discard(host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<(), ApiError> {
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
        ] {
            let mut host: HostConfig = serde_json::from_value(json!({member: value})).unwrap();
            let mut warnings = Vec::new();
            discard(&mut host, &mut warnings).unwrap();
            assert_eq!(host, HostConfig::default(), "{member}");
            assert_eq!(warnings.len(), 1, "{member}");
            assert!(warnings[0].ends_with("discarded."), "{warnings:?}");
        }
    }

    #[test]
    fn what_no_linux_has_is_refused() {
        for (member, value) in [
            ("MemorySwappiness", json!(101)),
            ("IOMaximumIOps", json!(5)),
            ("IOMaximumBandwidth", json!(5)),
            ("StorageOpt", json!({"size": "1g"})),
        ] {
            let mut host: HostConfig = serde_json::from_value(json!({member: value})).unwrap();
            assert!(discard(&mut host, &mut Vec::new()).is_err(), "{member}");
        }
    }
}
