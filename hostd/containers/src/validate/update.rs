//! `POST /containers/{id}/update`: which members may change, and what that asks of the runtime.

use keelson_model::container::HostConfig;
use serde_json::{Value, json};

use super::refuse::{is_unset, refuse_host};
use super::{check_restart, invalid};
use crate::EngineError;
use crate::host::HostFacts;
use crate::spec::resources;

/// A change after validation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    /// The configuration afterwards.
    pub(crate) host: HostConfig,
    /// OCI resources that bring a running container there; `None` when no limit was given.
    pub(crate) resources: Option<Value>,
}

/// Checks a change against what the container has.
pub(crate) fn update(
    before: &HostConfig,
    request: &HostConfig,
    facts: &HostFacts,
) -> Result<Update, EngineError> {
    refuse_others(request)?;
    check_conflicts(before, request)?;
    let mut host = before.clone();
    merge(&mut host, request);
    refuse_host(&host)?;
    resources::check(&host, facts)?;
    if !request.restart_policy.name.is_empty() {
        if host.auto_remove && request.restart_policy.name != "no" {
            return Err(EngineError::Conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
                    .to_owned(),
            ));
        }
        host.restart_policy = request.restart_policy.clone();
        check_restart(&host)?;
    } else if request.restart_policy.maximum_retry_count != 0 {
        return invalid("RestartPolicy.MaximumRetryCount needs RestartPolicy.Name");
    }
    let resources = limits(request).then(|| {
        let mut resources = resources::to_oci(&host);
        if host.pids_limit.is_some_and(|limit| limit <= 0) {
            resources.insert("pids".to_owned(), json!({ "limit": -1 }));
        }
        Value::Object(resources)
    });
    Ok(Update { host, resources })
}

/// Whether the request has a limit.
fn limits(request: &HostConfig) -> bool {
    let mut host = HostConfig::default();
    merge(&mut host, request);
    host.ulimits = None;
    host != HostConfig::default()
}

/// Refuses by name what is given and can't be changed.
fn refuse_others(request: &HostConfig) -> Result<(), EngineError> {
    refuse_host(request)?;
    let mut changeable = HostConfig {
        restart_policy: request.restart_policy.clone(),
        memory_swappiness: request.memory_swappiness,
        ..HostConfig::default()
    };
    merge(&mut changeable, request);
    let json = |host: &HostConfig| {
        serde_json::to_value(host).map_err(|e| EngineError::Internal(format!("update: {e}")))
    };
    let (given, allowed) = (json(request)?, json(&changeable)?);
    match given
        .as_object()
        .into_iter()
        .flatten()
        .find(|(name, value)| allowed.get(name.as_str()) != Some(*value) && !is_unset(value))
    {
        Some((name, value)) => Err(EngineError::NotImplemented(format!(
            "{name} of an existing container cannot be changed (value {value})"
        ))),
        None => Ok(()),
    }
}

/// What was set before and contradicts the change without being named in it.
fn check_conflicts(before: &HostConfig, request: &HostConfig) -> Result<(), EngineError> {
    let set = |name: &str, other: &str| {
        Err(EngineError::Conflict(format!(
            "Conflicting options: {name} cannot be updated as {other} has already been set"
        )))
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
        return Err(EngineError::Conflict(
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
    if request.pids_limit.is_some() {
        host.pids_limit = request.pids_limit;
    }
    // As Docker keeps them: for processes that are started from now on.
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
    use keelson_model::container::RestartPolicy;

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

    fn host(json: Value) -> HostConfig {
        serde_json::from_value(json).unwrap()
    }

    fn updated(before: Value, request: Value) -> Result<Update, EngineError> {
        update(&host(before), &host(request), &facts())
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
        assert_eq!(
            update.resources.unwrap(),
            json!({
                "memory": {"limit": 32 << 20, "swap": 64 << 20},
                "cpu": {"shares": 512},
                "pids": {"limit": 9},
            })
        );
    }

    #[test]
    fn limits_are_lifted() {
        let update = updated(
            json!({"PidsLimit": 9, "CpuQuota": 5000, "Memory": 64 << 20, "MemorySwap": 65 << 20}),
            json!({"PidsLimit": 0, "CpuQuota": -1, "MemorySwap": -1}),
        )
        .unwrap();
        assert_eq!(
            update.resources.unwrap(),
            json!({
                "memory": {"limit": 64 << 20, "swap": -1},
                "cpu": {"quota": -1},
                "pids": {"limit": -1},
            })
        );
    }

    #[test]
    fn ulimits_are_for_the_next_start() {
        let limits = json!([{"Name": "nofile", "Soft": 10, "Hard": 20}]);
        let update = updated(json!({}), json!({"Ulimits": limits})).unwrap();
        assert_eq!(update.resources, None);
        assert_eq!(serde_json::to_value(&update.host.ulimits).unwrap(), limits);
    }

    #[test]
    fn a_restart_policy_needs_no_limits() {
        let update = updated(
            json!({"RestartPolicy": {"Name": "no"}}),
            json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
        )
        .unwrap();
        assert_eq!(update.resources, None);
        let wanted = RestartPolicy {
            name: "on-failure".to_owned(),
            maximum_retry_count: 3,
        };
        assert_eq!(update.host.restart_policy, wanted);
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
            (json!({}), json!({"BlkioWeight": 300}), "BlkioWeight"),
            (json!({}), json!({"Privileged": true}), "Privileged"),
            (json!({}), json!({"Binds": ["/a:/b"]}), "Binds"),
        ] {
            let message = updated(before, request).unwrap_err().to_string();
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}
