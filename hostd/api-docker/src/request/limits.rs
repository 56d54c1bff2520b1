//! Translates Docker's limits, in which 0 means "not given" and -1 often "none", to the engine's.

use hostd_containers::HostFacts;
use keelson_model::spec::{
    CpuLimits, Limits, MemoryLimits, MemorySwap, PidsLimit, Rlimit, RlimitKind, SHM_SIZE,
};

use super::{block_io, invalid};
use crate::error::ApiError;
use crate::wire::{HostConfig, Ulimit};

/// Period of a quota that is given in processors, in microseconds.
const PERIOD: i64 = 100_000;

/// Reads the limits. The engine checks whether they fit together.
pub(super) fn limits(host: &HostConfig) -> Result<Limits, ApiError> {
    let rlimits = host.ulimits.iter().flatten().map(rlimit);
    Ok(Limits {
        memory: memory(host)?,
        cpu: cpu(host)?,
        pids: match host.pids_limit {
            None => PidsLimit::NotGiven,
            Some(0 | -1) => PidsLimit::Unlimited,
            Some(limit) => match u64::try_from(limit) {
                Ok(limit) => PidsLimit::AtMost(limit),
                Err(_) => return invalid("invalid pids limit: must be -1, 0 or greater"),
            },
        },
        io: block_io::limits(host)?,
        rlimits: rlimits.collect::<Result<_, _>>()?,
        shm_size: match u64::try_from(host.shm_size) {
            Ok(0) => SHM_SIZE,
            Ok(size) => size,
            Err(_) => return invalid("SHM size can not be less than 0"),
        },
    })
}

/// Bytes or another number. 0: not given.
fn given(number: i64, error: &str) -> Result<Option<u64>, ApiError> {
    match u64::try_from(number) {
        Ok(number) => Ok((number > 0).then_some(number)),
        Err(_) => invalid(error),
    }
}

fn memory(host: &HostConfig) -> Result<MemoryLimits, ApiError> {
    let limit = given(host.memory, "Minimum memory limit allowed is 6MB")?;
    let swap = match host.memory_swap {
        0 => MemorySwap::AsMemory,
        -1 => MemorySwap::Unlimited,
        bytes => match u64::try_from(bytes) {
            Ok(bytes) => MemorySwap::Together(bytes),
            Err(_) => return invalid("invalid memory swap limit: must be -1 or greater"),
        },
    };
    Ok(MemoryLimits {
        limit,
        reservation: given(
            host.memory_reservation,
            "Minimum memory reservation allowed is 6MB",
        )?,
        swap,
        oom_score_adjustment: host.oom_score_adj,
    })
}

fn cpu(host: &HostConfig) -> Result<CpuLimits, ApiError> {
    if host.nano_cpus > 0 && (host.cpu_period != 0 || host.cpu_quota != 0) {
        return invalid(
            "Conflicting options: Nano CPUs and CPU period or quota cannot both be set",
        );
    }
    let shares = given(
        host.cpu_shares,
        &format!("invalid CPU shares ({})", host.cpu_shares),
    )?;
    let period = given(
        host.cpu_period,
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
    )?;
    let (quota, period) = match host.nano_cpus {
        1.. => {
            let quota = i128::from(host.nano_cpus) * i128::from(PERIOD) / 1_000_000_000;
            let quota = i64::try_from(quota).unwrap_or(i64::MAX).max(1_000);
            (Some(quota), Some(PERIOD.unsigned_abs()))
        }
        _ => ((host.cpu_quota != 0).then_some(host.cpu_quota), period),
    };
    Ok(CpuLimits {
        shares,
        quota,
        period,
        cpus: host.cpuset_cpus.clone(),
        memory_nodes: host.cpuset_mems.clone(),
    })
}

/// Checks that the machine has this many processors.
pub(super) fn check_processors(host: &HostConfig, facts: &HostFacts) -> Result<(), ApiError> {
    let most = i64::from(facts.cpus) * 1_000_000_000;
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            facts.cpus
        ));
    }
    Ok(())
}

fn rlimit(ulimit: &Ulimit) -> Result<Rlimit, ApiError> {
    let name = ulimit.name.to_ascii_lowercase();
    let Some(kind) = RlimitKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == name)
    else {
        return invalid(format!("invalid ulimit type: {}", ulimit.name));
    };
    if ulimit.soft < -1 || ulimit.hard < -1 {
        return invalid(format!(
            "invalid ulimit {name}: limits must be -1 or greater"
        ));
    }
    // -1 is no limit.
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    Ok(Rlimit {
        kind,
        soft: value(ulimit.soft),
        hard: value(ulimit.hard),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> HostFacts {
        HostFacts {
            cpus: 2,
            ..HostFacts::default()
        }
    }

    /// Everything that is asked about limits.
    fn judged(host: &HostConfig) -> Result<Limits, ApiError> {
        check_processors(host, &facts())?;
        let root = keelson_model::spec::RootSpec::Image {
            id: String::new(),
            name: String::new(),
            read_only: false,
        };
        let mut spec = keelson_model::spec::ContainerSpec::new(root, "sh");
        spec.limits = limits(host)?;
        hostd_containers::check(&spec, std::path::Path::new("/e"))?;
        Ok(spec.limits)
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
        let limits = judged(&host).unwrap();
        assert_eq!(limits.memory.limit, Some(64 << 20));
        assert_eq!(limits.memory.swap, MemorySwap::AsMemory);
        assert_eq!(
            (limits.cpu.quota, limits.cpu.period),
            (Some(150_000), Some(100_000))
        );
        assert_eq!(limits.cpu.cpus, "0-1");
        assert_eq!(limits.pids, PidsLimit::AtMost(7));
        assert_eq!(judged(&HostConfig::default()).unwrap(), Limits::default());
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
            let error = judged(&host).unwrap_err().to_string().to_lowercase();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn unlimited_is_the_highest_number() {
        let ulimit = Ulimit {
            name: "core".to_owned(),
            soft: 0,
            hard: -1,
        };
        let limit = rlimit(&ulimit).unwrap();
        assert_eq!(limit.kind, RlimitKind::Core);
        assert_eq!((limit.soft, limit.hard), (0, u64::MAX));
    }
}
