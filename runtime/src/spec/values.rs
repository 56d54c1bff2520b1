//! Values that contradict each other or that nothing can have, found before anything is made.

use super::{LoadError, Memory, Process, Resources, Spec};

/// Checks a specification whose parts are of the right types.
pub(super) fn check(spec: &Spec) -> Result<(), LoadError> {
    if spec.annotations.contains_key("") {
        return Err(LoadError::value("annotations", "a key is empty"));
    }
    if let Some(process) = &spec.process {
        check_process(process)?;
    }
    match &spec.linux.resources {
        Some(resources) => check_resources(resources),
        None => Ok(()),
    }
}

/// Checks the process alone.
pub(super) fn check_process(process: &Process) -> Result<(), LoadError> {
    for (index, limit) in process.rlimits.iter().enumerate() {
        let member = |name: &str| format!("process.rlimits[{index}].{name}");
        let mut earlier = process.rlimits.iter().take(index);
        if earlier.any(|other| other.kind == limit.kind) {
            let reason = format!("{:?} is listed twice", limit.kind);
            return Err(LoadError::value(member("type"), reason));
        }
        if limit.soft > limit.hard {
            let (soft, hard, kind) = (limit.soft, limit.hard, &limit.kind);
            let reason = format!("{soft} is more than the hard limit {hard} of {kind}");
            return Err(LoadError::value(member("soft"), reason));
        }
    }
    let user = &process.user;
    let groups = user.additional_gids.iter().enumerate();
    let ids = [("uid".to_owned(), user.uid), ("gid".to_owned(), user.gid)]
        .into_iter()
        .chain(groups.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid)));
    for (name, id) in ids {
        if id == u32::MAX {
            let reason = format!("{id} means nobody to the kernel, the last one is 4294967294");
            return Err(LoadError::value(format!("process.user.{name}"), reason));
        }
    }
    if let Some(score) = process.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        let reason = format!("{score} is not between -1000 and 1000");
        return Err(LoadError::value("process.oomScoreAdj", reason));
    }
    if let Some(umask) = process.user.umask
        && umask > 0o777
    {
        let reason = format!("{umask:#o} has bits beyond 0777");
        return Err(LoadError::value("process.user.umask", reason));
    }
    Ok(())
}

fn check_resources(resources: &Resources) -> Result<(), LoadError> {
    let memory = resources.memory.as_ref();
    let memory = |size: fn(&Memory) -> Option<i64>| memory.and_then(size);
    let cpu = resources.cpu.as_ref();
    let pids = resources.pids.as_ref();
    let limits = [
        ("memory.limit", memory(|memory| memory.limit)),
        ("memory.reservation", memory(|memory| memory.reservation)),
        ("memory.swap", memory(|memory| memory.swap)),
        ("memory.kernel", memory(|memory| memory.kernel)),
        ("memory.kernelTCP", memory(|memory| memory.kernel_tcp)),
        ("cpu.quota", cpu.and_then(|cpu| cpu.quota)),
        ("pids.limit", pids.and_then(|pids| pids.limit)),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit.filter(|limit| *limit < -1) {
            return Err(LoadError::value(
                format!("linux.resources.{name}"),
                format!("{limit} is neither a limit nor -1, which is none"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod contradictions;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::spec::parse;

    /// A document with a member of every kind.
    pub(super) fn document() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "terminal": true,
                "consoleSize": {"height": 24, "width": 80},
                "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1]},
                "args": ["sh", "-c"], "env": ["A=\"b\\c\""], "cwd": "/",
                "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": []},
                "rlimits": [
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 1},
                    {"type": "RLIMIT_NOFILE", "soft": 8, "hard": 9}
                ],
                "noNewPrivileges": true, "oomScoreAdj": 5
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "h",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro"]}],
            "hooks": {"prestart": [{"path": "/x", "args": ["x"], "env": [], "timeout": 3}]},
            "annotations": {"a.b": "c"},
            "linux": {
                "namespaces": [
                    {"type": "mount"}, {"type": "time"}, {"type": "uts"}, {"type": "network"},
                    {"type": "pid"}
                ],
                "devices": [
                    {"type": "c", "path": "/dev/x", "major": 1, "minor": 2, "fileMode": 438},
                    {"type": "b", "path": "/dev/y", "major": 7, "minor": 0}
                ],
                "cgroupsPath": "/x",
                "resources": {
                    "devices": [{"allow": false, "access": "rwm"}],
                    "memory": {"limit": 1, "swap": -1},
                    "cpu": {"shares": 2, "quota": -1, "cpus": "0"},
                    "pids": {"limit": 3},
                    "blockIO": {"weight": 10},
                    "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                    "unified": {"memory.high": "1"}
                },
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                    "syscalls": [{
                        "names": ["read"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
                    }]
                },
                "sysctl": {"net.ipv4.ip_forward": "1"},
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
                "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 2}}
            }
        })
    }

    /// The place of every value below one: as a JSON pointer and as errors name it.
    fn places(value: &Value, pointer: &str, name: &str, into: &mut Vec<(String, String)>) {
        if !pointer.is_empty() {
            into.push((pointer.to_owned(), name.to_owned()));
        }
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    let dot = if name.is_empty() { "" } else { "." };
                    let name = format!("{name}{dot}{key}");
                    places(value, &format!("{pointer}/{key}"), &name, into);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    let name = format!("{name}[{index}]");
                    places(value, &format!("{pointer}/{index}"), &name, into);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn a_wrong_type_anywhere_is_refused_by_name() {
        let good = document();
        parse(good.to_string().as_bytes()).unwrap();
        let mut all = Vec::new();
        places(&good, "", "", &mut all);
        assert!(all.len() > 100, "{}", all.len());
        for (pointer, name) in all {
            let mut bad = good.clone();
            let value = bad.pointer_mut(&pointer).unwrap();
            *value = match value {
                Value::String(_) => json!(7),
                _ => json!("x"),
            };
            for text in [bad.to_string(), format!("{bad:#}")] {
                let error = parse(text.as_bytes()).unwrap_err().to_string();
                let named = error.contains(&format!(": {name}: "));
                assert!(named, "{name} is not named: {error}");
            }
        }
    }
}
