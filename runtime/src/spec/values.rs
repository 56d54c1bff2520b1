//! Finds values that contradict each other or are impossible, before anything is made.

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
            let reason =
                format!("{id} is invalid for the kernel, the last valid one is 4294967294");
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
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::check;
    use crate::spec::parse;

    /// A document with every member.
    pub(super) fn document() -> Value {
        let text = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../fuzz/seeds/runtime_config/full.json"
        ));
        serde_json::from_str(text).unwrap()
    }

    /// The places of all values below one: as a JSON pointer, and as errors name them.
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
        assert!(all.len() > 250, "{}", all.len());
        for (pointer, name) in all {
            let old = good.pointer(&pointer).unwrap();
            let others = match old {
                Value::String(_) => [json!(7), json!([]), json!({})],
                Value::Array(_) => [json!("x"), json!(7), json!({})],
                Value::Object(_) => [json!("x"), json!([]), json!([[]])],
                _ => [json!("x"), json!([]), json!({})],
            };
            for other in others {
                let mut bad = good.clone();
                *bad.pointer_mut(&pointer).unwrap() = other;
                for text in [bad.to_string(), format!("{bad:#}")] {
                    let error = parse(text.as_bytes()).unwrap_err().to_string();
                    // If a list stands instead of a name, its elements are checked.
                    let places = [format!(": {name}: "), format!(": {name}[0]: ")];
                    let named = places.iter().any(|place| error.contains(place));
                    assert!(named, "{name} is not named: {error}");
                }
            }
        }
    }

    fn other_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-2i64..9).prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[a-z/.0-9-]{0,6}".prop_map(Value::from),
            Just(json!([])),
            Just(json!({})),
            Just(json!([{}, "x", 1])),
        ]
    }

    proptest! {
        #[test]
        fn changed_documents_are_accepted_or_refused_by_name(
            changes in proptest::collection::vec((any::<u16>(), other_value()), 1..5),
        ) {
            let full = document();
            let mut all = Vec::new();
            places(&full, "", "", &mut all);
            let mut changed = full.clone();
            for (place, value) in changes {
                let (pointer, _) = &all[usize::from(place) % all.len()];
                if let Some(old) = changed.pointer_mut(pointer) {
                    *old = value;
                }
            }
            if let Err(error) = check::config(changed.to_string().as_bytes()) {
                let error = error.to_string();
                let error = error.strip_prefix("config.json: ").unwrap_or(&error);
                let (name, _) = error.split_once(": ").unwrap();
                let first = name.split(['.', '[', ' ']).next().unwrap();
                prop_assert!(full.get(first).is_some(), "{}", error);
            }
        }
    }
}
