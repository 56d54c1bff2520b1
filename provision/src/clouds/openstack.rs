//! OpenStack: `meta_data.json` and `vendor_data.json` (nova documentation, "Metadata").

use serde::Deserialize;

use crate::nocloud;
use crate::seed::Bytes;
use crate::yaml;

/// `meta_data.json`, what is used of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenStackData {
    /// `uuid`: the instance.
    pub uuid: String,
    /// `hostname`, or `name`.
    pub hostname: Option<String>,
    /// `public_keys`.
    pub public_keys: Vec<String>,
}

#[derive(Deserialize)]
struct Wire {
    uuid: String,
    hostname: Option<String>,
    name: Option<String>,
    public_keys: Option<serde_json::Value>,
    keys: Option<Vec<WireKey>>,
}

#[derive(Deserialize)]
struct WireKey {
    #[serde(rename = "type")]
    kind: Option<String>,
    data: Option<String>,
}

/// Reads `meta_data.json`.
///
/// # Errors
/// It is no such document, or has no `uuid`.
pub fn meta_data(bytes: &[u8]) -> Result<OpenStackData, serde_json::Error> {
    let wire: Wire = serde_json::from_slice(bytes)?;
    let mut public_keys = wire
        .public_keys
        .map(|keys| nocloud::keys(&yaml::from_json(&keys)))
        .unwrap_or_default();
    let ssh = |key: WireKey| {
        Some(key.data?.trim().to_owned()).filter(|_| key.kind.as_deref() == Some("ssh"))
    };
    super::add_keys(
        &mut public_keys,
        wire.keys.unwrap_or_default().into_iter().filter_map(ssh),
    );
    Ok(OpenStackData {
        uuid: wire.uuid,
        hostname: wire.hostname.or(wire.name),
        public_keys,
    })
}

/// `vendor_data.json`: a text, or an object with `cloud-init`. `None`: it says nothing to us.
#[must_use]
pub fn vendor_data(bytes: &[u8]) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let text = value
        .as_str()
        .or_else(|| value.get("cloud-init")?.as_str())?;
    Some(Bytes(text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_data_is_read() {
        let text = br#"{"uuid": "u-1", "name": "web", "hostname": "web.novalocal",
            "public_keys": {"mine": "ssh-rsa A\n"},
            "keys": [{"type": "ssh", "name": "mine", "data": "ssh-rsa A\n"}, {"type": "x509"}]}"#;
        let data = meta_data(text).unwrap();
        assert_eq!(data.uuid, "u-1");
        assert_eq!(data.hostname.as_deref(), Some("web.novalocal"));
        assert_eq!(data.public_keys, ["ssh-rsa A"]);
        assert!(meta_data(b"{}").is_err());
        assert_eq!(
            vendor_data(b"\"#cloud-config\"").unwrap().0,
            b"#cloud-config"
        );
        assert_eq!(
            vendor_data(br##"{"cloud-init": "#!x"}"##).unwrap().0,
            b"#!x"
        );
        assert_eq!(vendor_data(b"{}"), None);
    }
}
