//! Every field in words for an operator: meaning, valid values, effect of a change. The page
//! `docs/configuration.md` is made of it, and a test compares it with the types.

use serde::{Deserialize, Serialize};

mod engine;
mod host;
mod logs;
mod machine;
mod page;
mod services;

pub use page::page;

use crate::path::{self, pattern};

/// A table or a key of `host.toml`. `docs/configuration.md` is made of these.
#[derive(Debug, Clone, Copy)]
pub struct SchemaEntry {
    /// Path, list indexes as `[]`: `network.link[].mtu`. `[NAME]` stands for any name.
    pub path: &'static str,
    /// What it is.
    pub shape: EntryShape,
    /// What is right, shown when a value is wrong. One sentence without a full stop.
    pub remedy: &'static str,
}

/// What an [`SchemaEntry`] is.
#[derive(Debug, Clone, Copy)]
pub enum EntryShape {
    /// A table, and what stands before and after its keys on the page.
    Table {
        /// Before.
        before: &'static str,
        /// After.
        after: &'static str,
    },
    /// A key.
    Key {
        /// Its type.
        kind: &'static str,
        /// Its value when no file says one.
        default: &'static str,
        /// What it does.
        meaning: &'static str,
    },
}

const fn table(
    path: &'static str,
    remedy: &'static str,
    before: &'static str,
    after: &'static str,
) -> SchemaEntry {
    SchemaEntry {
        path,
        shape: EntryShape::Table { before, after },
        remedy,
    }
}

const fn key(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> SchemaEntry {
    SchemaEntry {
        path,
        shape: EntryShape::Key {
            kind,
            default,
            meaning,
        },
        remedy,
    }
}

/// Every table and every key, in the order of the page.
pub fn entries() -> impl Iterator<Item = &'static SchemaEntry> {
    [
        host::ENTRIES,
        engine::ENTRIES,
        services::ENTRIES,
        logs::ENTRIES,
        machine::ENTRIES,
    ]
    .into_iter()
    .flatten()
}

/// When a changed value has its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// At once.
    Now,
    /// When hostd is restarted. Containers go on while it is.
    Restart,
    /// At the next boot.
    Boot,
}

impl Effect {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Restart => "restart",
            Self::Boot => "boot",
        }
    }
}

/// When values take effect, by the beginning of their path; all others at the next boot.
const EFFECTS: &[(&str, Effect)] = &[
    ("hostname", Effect::Now),
    ("fqdn", Effect::Now),
    ("network", Effect::Now),
    ("time", Effect::Now),
    ("services", Effect::Now),
    ("user", Effect::Now),
    ("api", Effect::Restart),
    ("registries", Effect::Restart),
    ("images", Effect::Restart),
    ("engine", Effect::Restart),
    ("logs", Effect::Restart),
];

/// What can lock an operator out of the machine.
const ACCESS: &[&str] = &["network", "api", "user"];

/// What is described but not carried out yet.
const NOT_BUILT: &[&str] = &[
    "command",
    "network.link[].driver",
    "network.link[].dhcp6",
    "network.link[].accept_ra",
    "network.link[].routes",
    "network.link[].bond",
    "network.link[].vlan",
    "network.link[].bridge",
];

/// Values that are never shown: they are secrets, or may contain some.
const SECRETS: &[&str] = &[
    "user[].password_hash",
    "file[].contents",
    "file[].base64",
    "command[].argv",
    "command[].shell",
    "command[].script",
];

/// When a change of this field has its effect.
#[must_use]
pub fn effect(field: &str) -> Effect {
    EFFECTS
        .iter()
        .find(|(ancestor, _)| path::is_within(field, ancestor))
        .map_or(Effect::Boot, |(_, effect)| *effect)
}

/// Whether a wrong value of this field can lock an operator out of the machine.
#[must_use]
pub fn can_lock_out(field: &str) -> bool {
    ACCESS
        .iter()
        .any(|ancestor| path::is_within(field, ancestor))
}

/// Whether nothing carries this field out yet.
#[must_use]
pub fn is_not_built(field: &str) -> bool {
    let pattern = pattern(field);
    NOT_BUILT
        .iter()
        .any(|ancestor| path::is_within(&pattern, ancestor))
}

/// Whether the value of this field is never shown.
#[must_use]
pub fn is_secret(field: &str) -> bool {
    let pattern = pattern(field);
    SECRETS
        .iter()
        .any(|secret| path::is_within(&pattern, secret))
}

/// The remedy for a wrong value of `field`, for example `network.link[2].mtu`. If the field has
/// none, the remedy of the nearest enclosing field.
pub(crate) fn remedy(field: &str) -> &'static str {
    let pattern = with_placeholder(pattern(field));
    let mut rest = pattern.as_str();
    loop {
        let found = entries().find(|entry| {
            let list = entry.path.strip_suffix("[]");
            entry.path == rest || list == Some(rest)
        });
        if let Some(entry) = found {
            return entry.remedy;
        }
        rest = match rest.strip_suffix("[]") {
            Some(list) => list,
            None => match rest.rsplit_once('.') {
                Some((parent, _)) => parent,
                None => return "",
            },
        };
    }
}

/// Tables whose keys are names that an operator chooses.
const NAMED: &[&str] = &["services", "engine.runtimes"];

/// `services.console.image` → `services.NAME.image`.
fn with_placeholder(field: String) -> String {
    for table in NAMED {
        let rest = field.strip_prefix(table);
        if let Some(rest) = rest.and_then(|rest| rest.strip_prefix('.')) {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let after = rest.get(end..).unwrap_or_default();
            return format!("{table}.NAME{after}");
        }
    }
    field
}

/// The name, in messages, of the table that holds a field.
pub(crate) fn table_name(path: &str) -> String {
    match path {
        "" => "the top level".to_owned(),
        _ if path.ends_with(']') => format!("[[{}]]", pattern(path).trim_end_matches("[]")),
        _ => format!("[{path}]"),
    }
}

/// The known name that is most similar to `name`, if `name` looks like a typing error of it.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, ignoring case and taking `-` for `_`. Only the first 64 characters
/// count, which bounds the work for a hostile key.
fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars()
            .take(64)
            .map(|c| {
                if c == '-' {
                    '_'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect()
    };
    let (left, right) = (fold(left), fold(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut last = i + 1;
        next.push(last);
        for (b, pair) in right.iter().zip(row.windows(2)) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            last = (diagonal + usize::from(a != b))
                .min(above + 1)
                .min(last + 1);
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_errors() {
        let known = ["hostname", "network", "api", "time", "engine"];
        assert_eq!(nearest("hostnam", &known), Some("hostname"));
        assert_eq!(nearest("Netwrok", &known), Some("network"));
        assert_eq!(nearest("bananas", &known), None);
        assert_eq!(
            nearest("stop-timeout", &["stop_timeout"]),
            Some("stop_timeout")
        );
    }

    #[test]
    fn remedies_reach_into_lists() {
        assert_eq!(
            remedy("network.link[12].addresses[3]"),
            remedy("network.link[].addresses")
        );
        assert_eq!(remedy("network.unknown"), remedy("network"));
        assert!(remedy("services.web.mounts[2].source").contains("{state}"));
        assert!(remedy("services.web").contains("services.NAME"));
        assert_eq!(remedy(""), "");
    }

    #[test]
    fn tables_have_names() {
        assert_eq!(table_name(""), "the top level");
        assert_eq!(table_name("network"), "[network]");
        assert_eq!(table_name("network.link[1]"), "[[network.link]]");
    }
}
