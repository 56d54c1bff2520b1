//! Ignition 3.0 to 3.6 (its documentation, "Configuration Specification"): the subset that makes
//! sense on a machine without systemd.
//!
//! Ignition stops the boot when anything fails. This machine goes on, and says in the status of the
//! provisioning what was left out: one that reaches its API can be repaired.

mod files;
mod source;
mod users;

use crate::fields::Fields;
use crate::notes::Notes;
use crate::resources::{ResourceError, Resources};
use crate::settings::Settings;
use crate::yaml::{self, YamlNode};

/// Deepest chain of configurations that refer to others.
const MAX_DEPTH: usize = 8;
/// Highest minor version of 3 that is understood.
const MAX_MINOR: u32 = 6;

/// Why an Ignition document has no effect.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IgnitionError {
    /// It is no JSON.
    #[error("Ignition: {0}")]
    Json(String),
    /// Another version.
    #[error("Ignition version {0:?} is not supported: use 3.0.0 to 3.6.0 (Butane writes them)")]
    Version(String),
    /// Configurations refer to others without end.
    #[error("Ignition: more than {MAX_DEPTH} configurations refer to each other")]
    TooDeep,
    /// A configuration that it refers to is not there.
    #[error("Ignition: {0}")]
    Resource(#[from] ResourceError),
    /// A configuration that it refers to is not what it should be.
    #[error("Ignition: {0}")]
    Source(#[from] source::ContentsError),
}

/// Translates a document.
///
/// # Errors
/// [`IgnitionError`]. What was translated before stays in `settings`.
pub fn translate(
    bytes: &[u8],
    settings: &mut Settings,
    notes: &mut Notes,
    resources: &mut dyn Resources,
) -> Result<(), IgnitionError> {
    document(bytes, settings, notes, resources, 0)
}

/// JSON with lines where they can be had: nearly all JSON is YAML, too.
fn tree(bytes: &[u8]) -> Result<YamlNode, IgnitionError> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| IgnitionError::Json(error.to_string()))?;
    let plain = yaml::from_json(&value);
    match yaml::parse(bytes) {
        Ok(node) if without_lines(&node) == without_lines(&plain) => Ok(node),
        _ => Ok(plain),
    }
}

/// The shape of a tree, in an order that does not depend on the reader.
fn without_lines(node: &YamlNode) -> String {
    match &node.value {
        yaml::Value::Scalar { text, .. } if node.is_null() => {
            debug_assert!(text.len() <= 4);
            "null".to_owned()
        }
        yaml::Value::Scalar { text, .. } => format!("{text:?}"),
        yaml::Value::List(list) => {
            let parts: Vec<String> = list.iter().map(without_lines).collect();
            format!("[{}]", parts.join(","))
        }
        yaml::Value::Map(map) => {
            let mut parts: Vec<String> = map
                .iter()
                .map(|entry| format!("{:?}:{}", entry.key, without_lines(&entry.node)))
                .collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
    }
}

fn document(
    bytes: &[u8],
    settings: &mut Settings,
    notes: &mut Notes,
    resources: &mut dyn Resources,
    depth: usize,
) -> Result<(), IgnitionError> {
    if depth > MAX_DEPTH {
        return Err(IgnitionError::TooDeep);
    }
    let root = tree(bytes)?;
    let head = root.get("ignition");
    check_version(head)?;
    let config = head.and_then(|head| head.get("config"));
    // A replacement discards everything else.
    if let Some(replace) = config.and_then(|config| config.get("replace"))
        && replace.get("source").and_then(YamlNode::text).is_some()
    {
        let bytes = source::read(replace, resources)?;
        return document(&bytes, settings, notes, resources, depth + 1);
    }
    let mut fields = Fields::of(&root, "", notes);
    if let Some(head) = fields.take("ignition") {
        let mut head = Fields::of(head, "ignition", notes);
        head.ignore(&["version", "config", "timeouts"]);
        head.unsupported(
            &[
                ("security", "authorities come from the image"),
                ("proxy", "resources are read without a proxy"),
            ],
            notes,
        );
        head.finish(notes);
    }
    if let Some(passwd) = fields.take("passwd") {
        users::translate(passwd, settings, notes);
    }
    if let Some(storage) = fields.take("storage") {
        files::translate(storage, settings, notes, resources)?;
    }
    if let Some(systemd) = fields.take("systemd") {
        units(systemd, notes);
    }
    fields.unsupported(
        &[(
            "kernelArguments",
            "kernel arguments belong to the boot entry; set sysctls and modules in host.toml",
        )],
        notes,
    );
    fields.finish(notes);
    // Those that are merged go over this one, each over the one before.
    for child in config
        .and_then(|config| config.get("merge"))
        .and_then(YamlNode::list)
        .unwrap_or_default()
    {
        let bytes = source::read(child, resources)?;
        document(&bytes, settings, notes, resources, depth + 1)?;
    }
    Ok(())
}

fn check_version(head: Option<&YamlNode>) -> Result<(), IgnitionError> {
    let version = head
        .and_then(|head| head.get("version"))
        .and_then(YamlNode::text)
        .unwrap_or_default();
    let refused = || IgnitionError::Version(version.chars().take(40).collect());
    let minor = version
        .strip_prefix("3.")
        .and_then(|rest| rest.strip_suffix(".0"))
        .and_then(|minor| minor.parse::<u32>().ok());
    match minor {
        Some(minor) if minor <= MAX_MINOR => Ok(()),
        _ => Err(refused()),
    }
}

/// There is no systemd, and most units that people write run docker.
fn units(node: &YamlNode, notes: &mut Notes) {
    for unit in node
        .get("units")
        .and_then(YamlNode::list)
        .unwrap_or_default()
    {
        let name = unit
            .get("name")
            .and_then(YamlNode::text)
            .unwrap_or("without name");
        let name: String = name.chars().take(100).collect();
        let runs_container = unit
            .get("contents")
            .and_then(YamlNode::text)
            .is_some_and(|text| text.contains("docker ") || text.contains("podman "));
        let remedy = match runs_container {
            true => "it runs a container: declare that as a workload in host.toml",
            false => "there is no systemd: declare a service or a workload in host.toml",
        };
        notes.at(
            unit.line,
            format!("unit {name:?} is not supported: {remedy}"),
        );
    }
}
