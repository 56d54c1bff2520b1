//! Limits: Docker's numbers, brought to OCI's.

use keelson_model::container::{HostConfig, Ulimit};
use serde_json::{Map, Value, json};

use crate::EngineError;
use crate::host::HostFacts;

/// Docker refuses less, because nothing starts with less.
const MIN_MEMORY: i64 = 6 << 20;
/// Period of a quota that is given in processors, in microseconds.
const PERIOD: i64 = 100_000;

fn invalid<T>(message: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(message.into()))
}

/// Checks limits against each other and against the host.
pub(crate) fn check(host: &HostConfig, facts: &HostFacts) -> Result<(), EngineError> {
    check_memory(host)?;
    check_cpu(host, facts)?;
    if host.pids_limit.is_some_and(|limit| limit < -1) {
        return invalid("invalid pids limit: must be -1, 0 or greater");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    for ulimit in host.ulimits.iter().flatten() {
        rlimit(ulimit)?;
    }
    for (controller, used) in [
        ("memory", host.memory > 0 || host.memory_reservation > 0),
        (
            "cpu",
            host.cpu_shares > 0 || host.cpu_quota > 0 || host.nano_cpus > 0,
        ),
        (
            "cpuset",
            !host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty(),
        ),
        ("pids", host.pids_limit.is_some_and(|limit| limit > 0)),
    ] {
        if used && !facts.controllers.iter().any(|known| known == controller) {
            return invalid(format!(
                "the cgroup controller \"{controller}\" is not available on this host, so its limit cannot be set"
            ));
        }
    }
    Ok(())
}

fn check_memory(host: &HostConfig) -> Result<(), EngineError> {
    if host.memory < 0 || (host.memory > 0 && host.memory < MIN_MEMORY) {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if host.memory_swap < -1 {
        return invalid("invalid memory swap limit: must be -1 or greater");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory_reservation < 0
        || (host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY)
    {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    Ok(())
}

fn check_cpu(host: &HostConfig, facts: &HostFacts) -> Result<(), EngineError> {
    if host.nano_cpus > 0 && (host.cpu_period != 0 || host.cpu_quota != 0) {
        return invalid(
            "Conflicting options: Nano CPUs and CPU period or quota cannot both be set",
        );
    }
    let most = i64::from(facts.cpus) * 1_000_000_000;
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            facts.cpus
        ));
    }
    if host.cpu_shares < 0 {
        return invalid(format!("invalid CPU shares ({})", host.cpu_shares));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    for (what, list) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !list.is_empty() && !is_number_list(list) {
            return invalid(format!("Invalid value {list} for cpuset {what}"));
        }
    }
    Ok(())
}

/// `0-2,4`.
fn is_number_list(text: &str) -> bool {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
        None => number(part).is_some(),
    })
}

/// `linux.resources` without devices. Only what was asked for is there, so that nothing is
/// written to cgroup files that need not be.
pub(crate) fn to_oci(host: &HostConfig) -> Map<String, Value> {
    let mut memory = Map::new();
    if host.memory > 0 {
        memory.insert("limit".to_owned(), json!(host.memory));
        let swap = match host.memory_swap {
            0 => host.memory.saturating_mul(2),
            other => other,
        };
        memory.insert("swap".to_owned(), json!(swap));
    }
    if host.memory_reservation > 0 {
        memory.insert("reservation".to_owned(), json!(host.memory_reservation));
    }
    let mut cpu = Map::new();
    if host.cpu_shares > 0 {
        cpu.insert("shares".to_owned(), json!(host.cpu_shares));
    }
    if host.nano_cpus > 0 {
        let quota = i128::from(host.nano_cpus) * i128::from(PERIOD) / 1_000_000_000;
        cpu.insert("quota".to_owned(), json!(quota.max(1_000)));
        cpu.insert("period".to_owned(), json!(PERIOD));
    }
    if host.cpu_quota != 0 {
        cpu.insert("quota".to_owned(), json!(host.cpu_quota));
    }
    if host.cpu_period > 0 {
        cpu.insert("period".to_owned(), json!(host.cpu_period));
    }
    if !host.cpuset_cpus.is_empty() {
        cpu.insert("cpus".to_owned(), json!(host.cpuset_cpus));
    }
    if !host.cpuset_mems.is_empty() {
        cpu.insert("mems".to_owned(), json!(host.cpuset_mems));
    }
    let mut resources = Map::new();
    for (name, members) in [("memory", memory), ("cpu", cpu)] {
        if !members.is_empty() {
            resources.insert(name.to_owned(), Value::Object(members));
        }
    }
    if let Some(limit) = host.pids_limit.filter(|limit| *limit > 0) {
        resources.insert("pids".to_owned(), json!({ "limit": limit }));
    }
    resources
}

/// One of `process.rlimits`.
pub(crate) fn rlimit(ulimit: &Ulimit) -> Result<Value, EngineError> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let name = ulimit.name.to_ascii_lowercase();
    if !NAMES.contains(&name.as_str()) {
        return invalid(format!("invalid ulimit type: {}", ulimit.name));
    }
    if ulimit.soft < -1 || ulimit.hard < -1 {
        return invalid(format!(
            "invalid ulimit {name}: limits must be -1 or greater"
        ));
    }
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    if value(ulimit.soft) > value(ulimit.hard) {
        return invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            ulimit.soft, ulimit.hard
        ));
    }
    Ok(json!({
        "type": format!("RLIMIT_{}", name.to_ascii_uppercase()),
        "soft": value(ulimit.soft),
        "hard": value(ulimit.hard),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> HostFacts {
        HostFacts {
            controllers: ["memory", "cpu", "cpuset", "pids"]
                .map(str::to_owned)
                .into(),
            cpus: 2,
            ..HostFacts::default()
        }
    }

    #[test]
    fn translation() {
        let host = HostConfig {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids_limit: Some(7),
            cpuset_cpus: "0-1".to_owned(),
            ..HostConfig::default()
        };
        check(&host, &facts()).unwrap();
        assert_eq!(
            Value::Object(to_oci(&host)),
            json!({
                "memory": {"limit": 64 << 20, "swap": 128 << 20},
                "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0-1"},
                "pids": {"limit": 7},
            })
        );
        assert!(
            to_oci(&HostConfig {
                pids_limit: Some(-1),
                ..HostConfig::default()
            })
            .is_empty()
        );
    }

    #[test]
    fn contradictions_and_bad_values() {
        let default = HostConfig::default;
        for (name, host) in [
            (
                "memory",
                HostConfig {
                    memory: 1 << 20,
                    ..default()
                },
            ),
            (
                "swap",
                HostConfig {
                    memory_swap: 1 << 30,
                    ..default()
                },
            ),
            (
                "swap",
                HostConfig {
                    memory: 1 << 30,
                    memory_swap: 1 << 29,
                    ..default()
                },
            ),
            (
                "cpus",
                HostConfig {
                    nano_cpus: 3_000_000_000,
                    ..default()
                },
            ),
            (
                "cpus",
                HostConfig {
                    nano_cpus: 1,
                    cpu_quota: 5_000,
                    ..default()
                },
            ),
            (
                "period",
                HostConfig {
                    cpu_period: 5,
                    ..default()
                },
            ),
            (
                "cpuset",
                HostConfig {
                    cpuset_cpus: "a".to_owned(),
                    ..default()
                },
            ),
            (
                "cpuset",
                HostConfig {
                    cpuset_mems: "3-1".to_owned(),
                    ..default()
                },
            ),
            (
                "pids",
                HostConfig {
                    pids_limit: Some(-2),
                    ..default()
                },
            ),
            (
                "oom",
                HostConfig {
                    oom_score_adj: 1001,
                    ..default()
                },
            ),
            (
                "ulimit",
                HostConfig {
                    ulimits: Some(vec![Ulimit {
                        name: "nofile".to_owned(),
                        soft: -1,
                        hard: 5,
                    }]),
                    ..default()
                },
            ),
        ] {
            assert!(check(&host, &facts()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_missing_controller_is_named() {
        let host = HostConfig {
            memory: 1 << 30,
            ..HostConfig::default()
        };
        let error = check(&host, &HostFacts::default()).unwrap_err();
        assert!(error.to_string().contains("\"memory\""));
        check(&HostConfig::default(), &HostFacts::default()).unwrap();
    }

    #[test]
    fn unlimited_is_the_highest_number() {
        let ulimit = Ulimit {
            name: "core".to_owned(),
            soft: 0,
            hard: -1,
        };
        assert_eq!(
            rlimit(&ulimit).unwrap(),
            json!({"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX})
        );
    }
}
