//! Whether the host has what a specification asks for.

use std::fs;
use std::ops::RangeInclusive;

use keelson_model::spec::{CapabilitySet, ContainerSpec, CpuLimits, IoLimits, Limits, PidsLimit};

use super::capabilities::capabilities_in;
use crate::EngineError;
use crate::host::HostFacts;

fn invalid<T>(message: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(message.into()))
}

/// Checks a specification against the host.
///
/// # Errors
/// [`EngineError::Invalid`] when the host has not the cgroup controller of a limit or a requested
/// processor, or can't give a capability away.
pub fn check_host(spec: &ContainerSpec, facts: &HostFacts) -> Result<(), EngineError> {
    if let CapabilitySet::Only(names) = &spec.security.capabilities {
        let available: Vec<_> = capabilities_in(facts.capabilities).collect();
        if let Some(name) = names
            .iter()
            .find(|name| !available.contains(&name.as_str()))
        {
            return invalid(format!(
                "capability not supported by your kernel or not available in the current environment: \"CAP_{name}\""
            ));
        }
    }
    check_controllers(&spec.limits, facts)?;
    check_cpuset(&spec.limits.cpu, facts)
}

/// Checks limits against the cgroup controllers that the host has.
pub(crate) fn check_controllers(limits: &Limits, facts: &HostFacts) -> Result<(), EngineError> {
    let (memory, cpu) = (&limits.memory, &limits.cpu);
    for (controller, used) in [
        (
            "memory",
            memory.limit.is_some() || memory.reservation.is_some(),
        ),
        (
            "cpu",
            cpu.shares.is_some() || cpu.quota.is_some_and(|quota| quota > 0),
        ),
        (
            "cpuset",
            !cpu.cpus.is_empty() || !cpu.memory_nodes.is_empty(),
        ),
        ("pids", matches!(limits.pids, PidsLimit::AtMost(_))),
        ("io", limits.io != IoLimits::default()),
    ] {
        if used && !facts.controllers.iter().any(|known| known == controller) {
            return invalid(format!(
                "the cgroup controller \"{controller}\" is not available on this host, so its limit cannot be set"
            ));
        }
    }
    Ok(())
}

/// Checks the requested processors and memory nodes against those that the host has now: their
/// number changes while it runs.
pub(crate) fn check_cpuset(cpu: &CpuLimits, facts: &HostFacts) -> Result<(), EngineError> {
    for (what, list, file) in [
        ("CPUs", &cpu.cpus, "cpuset.cpus.effective"),
        ("memory nodes", &cpu.memory_nodes, "cpuset.mems.effective"),
    ] {
        let (false, Some(mount)) = (list.is_empty(), &facts.cgroup_mount) else {
            continue;
        };
        // Where the kernel does not say, it decides at the start.
        let Ok(available) = fs::read_to_string(mount.join(file)) else {
            continue;
        };
        let available = available.trim();
        if !is_subset(list, available) {
            return invalid(format!(
                "Requested {what} are not available - requested {list}, available: {available}"
            ));
        }
    }
    Ok(())
}

/// Whether every number of a list is in another one.
fn is_subset(list: &str, of: &str) -> bool {
    let (Some(list), Some(mut of)) = (numbers(list), numbers(of)) else {
        return false;
    };
    of.sort_by_key(|range| *range.start());
    list.iter().all(|wanted| {
        // What is not found yet. The ranges may touch each other.
        let mut rest = Some(*wanted.start());
        for range in &of {
            if let Some(next) = rest.filter(|next| range.contains(next)) {
                rest = match range.end() >= wanted.end() || *range.end() == u16::MAX {
                    true => None,
                    false => Some((*range.end()).max(next) + 1),
                };
            }
        }
        rest.is_none()
    })
}

/// The ranges of a list like `0-2,4`, unless it is none.
pub(super) fn numbers(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::RootSpec;

    use super::*;

    fn spec(change: impl FnOnce(&mut ContainerSpec)) -> ContainerSpec {
        let root = RootSpec::Image {
            id: "sha256:0".to_owned(),
            name: "box".to_owned(),
            read_only: false,
        };
        let mut spec = ContainerSpec::new(root, "sh");
        change(&mut spec);
        spec
    }

    #[test]
    fn what_the_host_has_not_is_named() {
        let none = HostFacts::default();
        check_host(&spec(|_| {}), &none).unwrap();
        let limited = spec(|s| s.limits.memory.limit = Some(1 << 30));
        let error = check_host(&limited, &none).unwrap_err();
        assert!(error.to_string().contains("\"memory\""));
        let able = spec(|s| {
            s.security.capabilities = CapabilitySet::Only(["CHOWN".to_owned()].into());
        });
        let error = check_host(&able, &none).unwrap_err();
        assert!(error.to_string().contains("CAP_CHOWN"));
    }

    #[test]
    fn processors_and_memory_nodes_must_be_there() {
        let mount = tempfile::tempdir().unwrap();
        let facts = HostFacts {
            cgroup_mount: Some(mount.path().to_owned()),
            controllers: vec!["cpuset".to_owned()],
            ..HostFacts::default()
        };
        let asked = |cpus: &str, memory_nodes: &str| {
            let spec = spec(|s| {
                s.limits.cpu.cpus = cpus.to_owned();
                s.limits.cpu.memory_nodes = memory_nodes.to_owned();
            });
            check_host(&spec, &facts).map_err(|error| error.to_string())
        };
        // A kernel that does not say it.
        assert_eq!(asked("63", "7"), Ok(()));
        fs::write(mount.path().join("cpuset.cpus.effective"), "0-1\n").unwrap();
        fs::write(mount.path().join("cpuset.mems.effective"), "0\n").unwrap();
        for cpus in ["", "0", "1", "0-1", "1,0"] {
            assert_eq!(asked(cpus, "0"), Ok(()), "{cpus}");
        }
        let processors = "Requested CPUs are not available - requested 63, available: 0-1";
        assert_eq!(asked("63", ""), Err(processors.to_owned()));
        let nodes = "Requested memory nodes are not available - requested 1, available: 0";
        assert_eq!(asked("0", "1"), Err(nodes.to_owned()));
        assert!(asked("1-2", "").is_err());
    }

    #[test]
    fn lists_are_compared_by_their_numbers() {
        for (list, of, wanted) in [
            ("0-3", "0-1,2-3", true),
            ("0-3", "2-3,0-1", true),
            ("0-3", "0-1,3", false),
            ("1,3", "0-3", true),
            ("0-65535", "0-65535", true),
            ("65535", "0-2", false),
            ("0", "", false),
            ("2-4", "0-2,4", false),
            ("2-4", "0-3,2-5", true),
        ] {
            assert_eq!(is_subset(list, of), wanted, "{list} of {of}");
        }
        for wrong in ["", "a", "3-1", "1-", "-1", "1,,2", "65536"] {
            assert_eq!(numbers(wrong), None, "{wrong}");
        }
    }
}
