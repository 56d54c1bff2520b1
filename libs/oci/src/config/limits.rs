//! Size limits of a configuration's members.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ConfigError, ImageConfig};

/// The limit for members that are copied to containers.
const COPIED: usize = 1 << 20;
/// The limit for a single word or path.
const WORD: usize = 4 << 10;
/// The limit for members that only describe how the image was made.
const REMARKS: usize = 4 << 20;

fn words(list: Option<&Vec<String>>) -> usize {
    list.map_or(0, |list| list.iter().map(|word| word.len() + 1).sum())
}

fn names(map: Option<&BTreeMap<String, Value>>) -> usize {
    map.map_or(0, |map| {
        let bytes = |(name, value): (&String, &Value)| name.len() + value_size(value);
        map.iter().map(bytes).sum()
    })
}

/// Bytes of all names and strings inside. Values are at most as deep as the reader allows.
fn value_size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|value| value_size(value) + 1).sum(),
        Value::Object(members) => {
            let bytes = |(name, value): (&String, &Value)| name.len() + value_size(value);
            members.iter().map(bytes).sum()
        }
        _ => 1,
    }
}

pub(super) fn check(config: &ImageConfig) -> Result<(), ConfigError> {
    let text = |text: Option<&String>| text.map_or(0, String::len);
    let defaults = &config.config;
    let labels = defaults.labels.as_ref().map_or(0, |labels| {
        let bytes = |(name, value): (&String, &String)| name.len() + value.len();
        labels.iter().map(bytes).sum()
    });
    let history = config.history.iter().map(|step| {
        let members = [&step.created, &step.created_by, &step.author, &step.comment];
        members
            .into_iter()
            .flatten()
            .map(String::len)
            .sum::<usize>()
    });
    let rest = |members: &serde_json::Map<String, Value>| {
        let bytes = |(name, value): (&String, &Value)| name.len() + value_size(value);
        members.iter().map(bytes).sum::<usize>()
    };
    let sizes = [
        ("created", text(config.created.as_ref()), WORD),
        ("author", text(config.author.as_ref()), WORD),
        ("architecture", config.architecture.len(), WORD),
        ("variant", text(config.variant.as_ref()), WORD),
        ("os", config.os.len(), WORD),
        ("os.version", text(config.os_version.as_ref()), WORD),
        ("config.Labels", labels, COPIED),
        ("config.Env", words(defaults.env.as_ref()), COPIED),
        (
            "config.Entrypoint",
            words(defaults.entrypoint.as_ref()),
            COPIED,
        ),
        ("config.Cmd", words(defaults.cmd.as_ref()), COPIED),
        ("config.Shell", words(defaults.shell.as_ref()), COPIED),
        ("config.OnBuild", words(defaults.on_build.as_ref()), COPIED),
        (
            "config.ExposedPorts",
            names(defaults.exposed_ports.as_ref()),
            COPIED,
        ),
        ("config.Volumes", names(defaults.volumes.as_ref()), COPIED),
        (
            "config.Healthcheck",
            defaults.healthcheck.as_ref().map_or(0, value_size),
            COPIED,
        ),
        ("config.User", defaults.user.len(), WORD),
        ("config.WorkingDir", defaults.working_dir.len(), WORD),
        (
            "config.StopSignal",
            text(defaults.stop_signal.as_ref()),
            WORD,
        ),
        ("config", rest(&defaults.other), COPIED),
        ("history", history.sum(), REMARKS),
    ];
    for (member, size, limit) in sizes {
        if size > limit {
            return Err(ConfigError::MemberTooLarge {
                member,
                size,
                limit,
            });
        }
    }
    let size = rest(&config.other);
    if size > REMARKS {
        return Err(ConfigError::MemberTooLarge {
            member: "(others than the known ones)",
            size,
            limit: REMARKS,
        });
    }
    Ok(())
}
