//! Google Compute Engine: `?recursive=true` of the metadata server (its documentation, "View and
//! query VM metadata").

use serde::Deserialize;

use super::{InstanceData, add_keys, decoded};
use crate::seed::Bytes;

#[derive(Deserialize)]
struct Wire {
    instance: Instance,
    #[serde(default)]
    project: Project,
}

#[derive(Deserialize)]
struct Instance {
    // 64 bits, so more than a float holds.
    id: serde_json::Number,
    hostname: Option<String>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Project {
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Attributes {
    user_data: Option<String>,
    user_data_encoding: Option<String>,
    ssh_keys: Option<String>,
    // The older name.
    #[serde(rename = "sshKeys")]
    old_ssh_keys: Option<String>,
    block_project_ssh_keys: Option<String>,
}

/// Reads `/computeMetadata/v1/?recursive=true`: `instance.id`, `instance.hostname`, keys of the instance
/// and the project, `instance.attributes.user-data`.
///
/// # Errors
/// It is no such document.
pub fn meta_data(bytes: &[u8]) -> Result<InstanceData, serde_json::Error> {
    let wire: Wire = serde_json::from_slice(bytes)?;
    let attributes = &wire.instance.attributes;
    let blocked = attributes
        .block_project_ssh_keys
        .as_deref()
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let mut lists = vec![&attributes.ssh_keys, &attributes.old_ssh_keys];
    if !blocked && attributes.old_ssh_keys.is_none() {
        let project = &wire.project.attributes;
        lists.extend([&project.ssh_keys, &project.old_ssh_keys]);
    }
    let mut public_keys = Vec::new();
    let lines = lists.into_iter().flatten().flat_map(|text| text.lines());
    add_keys(&mut public_keys, lines.filter_map(key));
    let user_data = attributes.user_data.as_ref().and_then(|text| {
        match attributes.user_data_encoding.as_deref() {
            Some("base64") => decoded(text),
            _ => Some(Bytes(text.as_bytes().to_vec())),
        }
    });
    Ok(InstanceData {
        id: wire.instance.id.to_string(),
        hostname: wire.instance.hostname,
        public_keys,
        user_data,
    })
}

/// `USER:KEY`. Keys that Google makes for a moment (`google-ssh {"userName":…,"expireOn":…}`) are
/// left out: they would stay in the configuration for ever.
fn key(line: &str) -> Option<String> {
    let line = line.trim();
    let key = match line.split_once(':') {
        Some((user, key)) if !user.contains(' ') => key.trim(),
        _ => line,
    };
    let useful = !key.is_empty() && !key.starts_with('#') && !key.contains(" google-ssh ");
    useful.then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_user_data_are_read() {
        let text = br##"{"instance": {"id": 9007199254740993000, "hostname": "web.c.p.internal",
            "attributes": {"user-data": "#cloud-config\n", "ssh-keys": "a:ssh-rsa A a\nb:ssh-rsa B google-ssh {\"x\":1}"}},
            "project": {"attributes": {"ssh-keys": "c:ssh-ed25519 C c"}}}"##;
        let data = meta_data(text).unwrap();
        assert_eq!(data.id, "9007199254740993000");
        assert_eq!(data.public_keys, ["ssh-rsa A a", "ssh-ed25519 C c"]);
        assert_eq!(data.user_data.unwrap().0, b"#cloud-config\n");
        let blocked = br#"{"instance": {"id": 1, "attributes": {"block-project-ssh-keys": "TRUE"}},
            "project": {"attributes": {"ssh-keys": "c:ssh-ed25519 C c"}}}"#;
        assert!(meta_data(blocked).unwrap().public_keys.is_empty());
    }
}
