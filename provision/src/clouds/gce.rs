//! Google Compute Engine: `?recursive=true` of the metadata server (its documentation, "View and
//! query VM metadata").

use serde::Deserialize;

use crate::seed::Bytes;

/// What is used of `/computeMetadata/v1/?recursive=true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GceData {
    /// `instance.id`.
    pub id: String,
    /// `instance.hostname`.
    pub hostname: Option<String>,
    /// Keys of the instance and the project.
    pub public_keys: Vec<String>,
    /// `instance.attributes.user-data`.
    pub user_data: Option<Bytes>,
}

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

/// Reads the document. `now` is in seconds since 1970: keys may have a day of expiry.
///
/// # Errors
/// It is no such document.
pub fn meta_data(bytes: &[u8]) -> Result<GceData, serde_json::Error> {
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
    for line in lists.into_iter().flatten().flat_map(|text| text.lines()) {
        if let Some(key) = key(line)
            && !public_keys.contains(&key)
        {
            public_keys.push(key);
        }
    }
    let user_data = attributes.user_data.as_ref().and_then(|text| {
        match attributes.user_data_encoding.as_deref() {
            Some("base64") => {
                use base64::Engine as _;
                let dense: String = text.split_ascii_whitespace().collect();
                base64::prelude::BASE64_STANDARD.decode(dense).ok()
            }
            _ => Some(text.as_bytes().to_vec()),
        }
    });
    Ok(GceData {
        id: wire.instance.id.to_string(),
        hostname: wire.instance.hostname,
        public_keys,
        user_data: user_data.map(Bytes),
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
