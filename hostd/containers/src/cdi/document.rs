//! Parses one document of a vendor. Pure.

use std::path::PathBuf;

use serde::Deserialize;

/// Why a document is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// It is neither YAML nor JSON, or does not have the required form.
    #[error("it can't be read: {0}")]
    Malformed(String),
    /// The version is unknown.
    #[error("cdiVersion {0:?} is not supported; use a version from 0.3 to 1.x")]
    Version(String),
    /// A name is invalid.
    #[error("{what} {value:?} is invalid")]
    Name {
        /// The kind of the named object.
        what: &'static str,
        /// The name.
        value: String,
    },
    /// The document requires something that the engine does not support.
    #[error("device {0:?} requires {1}, which is not implemented")]
    NotImplemented(String, &'static str),
}

/// A document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    cdi_version: String,
    /// `vendor.com/class`.
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// The edits for every device of the document.
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

/// The edits of a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    pub(crate) device_nodes: Vec<Node>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) additional_gids: Vec<u32>,
    intel_rdt: Option<serde_json::Value>,
    net_devices: Vec<serde_json::Value>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    /// The path in the container.
    pub(crate) path: PathBuf,
    /// The path on the host; absent if it is the same.
    pub(crate) host_path: Option<PathBuf>,
    /// Permissions: letters of `rwm`.
    pub(crate) permissions: Option<String>,
    pub(crate) file_mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mount {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) options: Vec<String>,
}

/// A program of the host that is run during the container's life.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hook {
    #[serde(rename = "hookName")]
    pub(crate) kind: HookKind,
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<u32>,
}

/// When a hook is run: names of the OCI runtime specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum HookKind {
    /// The older name of `createRuntime`.
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookKind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

impl Edits {
    /// Adds other edits.
    pub(super) fn extend(&mut self, others: &Self) {
        self.env.extend(others.env.iter().cloned());
        self.device_nodes
            .extend(others.device_nodes.iter().cloned());
        self.mounts.extend(others.mounts.iter().cloned());
        self.hooks.extend(others.hooks.iter().cloned());
        self.additional_gids.extend(&others.additional_gids);
    }

    fn check(&self, device: &str) -> Result<(), DocumentError> {
        let missing = match self {
            Self {
                intel_rdt: Some(_), ..
            } => "intelRdt",
            Self { net_devices, .. } if !net_devices.is_empty() => "netDevices",
            _ => return Ok(()),
        };
        Err(DocumentError::NotImplemented(device.to_owned(), missing))
    }
}

/// Parses a document. JSON is also valid YAML.
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, DocumentError> {
    let malformed = |error: &dyn std::fmt::Display| DocumentError::Malformed(error.to_string());
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(&error))?;
    let document: Document = serde_saphyr::from_str(text).map_err(|error| malformed(&error))?;
    let version = document.cdi_version.split('.').map(str::parse::<u32>);
    match version.take(2).collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([0, minor]) if *minor >= 3 => {}
        Ok([1, _]) => {}
        _ => return Err(DocumentError::Version(document.cdi_version)),
    }
    let name = |what, value: &str, fits: bool| match fits {
        true => Ok(()),
        false => Err(DocumentError::Name {
            what,
            value: value.to_owned(),
        }),
    };
    let kind = document.kind.split_once('/');
    let fits = kind.is_some_and(|(vendor, class)| is_word(vendor, "_-.") && is_word(class, "_-."));
    name("kind", &document.kind, fits)?;
    document.container_edits.check(&document.kind)?;
    for device in &document.devices {
        name("device name", &device.name, is_device(&device.name))?;
        device.container_edits.check(&device.name)?;
    }
    Ok(document)
}

/// Whether it begins with a letter, ends with a letter or digit, and has only these characters in
/// between.
fn is_word(text: &str, signs: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}

fn is_device(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || "_-.:".contains(c))
}

/// Whether it is a full name: `vendor.com/class=device`.
pub(crate) fn is_full_name(text: &str) -> bool {
    text.split_once('=').is_some_and(|(kind, device)| {
        let kind = kind.split_once('/');
        kind.is_some_and(|(vendor, class)| is_word(vendor, "_-.") && is_word(class, "_-."))
            && is_device(device)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn both_notations_are_read() {
        let json = r#"{"cdiVersion": "0.5.0", "kind": "v.com/c", "devices": [
            {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null"}]}}]}"#;
        let yaml = "cdiVersion: '0.5.0'\nkind: v.com/c\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: /dev/x\n      hostPath: /dev/null\n";
        assert_eq!(
            parse(json.as_bytes()).unwrap(),
            parse(yaml.as_bytes()).unwrap()
        );
    }

    #[test]
    fn errors_name_the_problem() {
        assert!(error("[").starts_with("it can't be read"));
        assert!(error("{cdiVersion: 9.0.0, kind: v/c}").contains("9.0.0"));
        assert!(error("{cdiVersion: 0.6.0, kind: vendor}").contains("kind \"vendor\""));
        let device = "{cdiVersion: 0.6.0, kind: v/c, devices: [{name: '='}]}";
        assert!(error(device).contains("device name \"=\""));
        let other =
            "{cdiVersion: 0.6.0, kind: v/c, devices: [{name: a, containerEdits: {intelRdt: {}}}]}";
        assert!(error(other).contains("intelRdt"));
    }

    #[test]
    fn full_names_are_recognised() {
        for good in ["nvidia.com/gpu=all", "a/b=0", "v.com/c-d=GPU-1:2.3"] {
            assert!(is_full_name(good), "{good}");
        }
        for bad in ["/dev/null", "a/b", "a/b=", "1/b=c", "a/b=c/d", "a=b"] {
            assert!(!is_full_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_documents_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
