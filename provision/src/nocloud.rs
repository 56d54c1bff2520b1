//! NoCloud: its line `ds=nocloud;…` and its meta-data (cloud-init documentation, "NoCloud").

use crate::seed::Bytes;
use crate::yaml::{self, YamlNode};

/// The instance-id of a seed that names none.
pub const DEFAULT_ID: &str = "nocloud";

/// A line on the kernel command line or in the SMBIOS serial number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Where the seed lies: a URL that ends with a slash.
    pub seed_from: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Instance-id.
    pub instance_id: Option<String>,
}

/// Why a line has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// `s` must be a directory.
    #[error("s={0} must end with a slash")]
    NoSlash(String),
    /// `s` has a scheme that can't be read.
    #[error("s={0} is not supported: use http:, https: or file:")]
    Scheme(String),
    /// A variable that is not there.
    #[error("variable {0:?} is unknown")]
    Variable(String),
}

/// The value of `ds=` without `ds=`. `None`: it is about another source.
///
/// # Errors
/// [`LineError`].
pub fn line(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Line>, LineError> {
    let mut parts = text.trim().split(';');
    let name = parts.next().unwrap_or_default().trim();
    // nocloud-net is the older name, and some write the full one.
    if !["nocloud", "nocloud-net"].contains(&name.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    let mut line = Line::default();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else {
            continue;
        };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match key.trim() {
            "s" | "seedfrom" => line.seed_from = value,
            "h" | "local-hostname" => line.hostname = value,
            "i" | "instance-id" => line.instance_id = value,
            // cloud-init passes others on to meta-data, where they have no meaning.
            _ => {}
        }
    }
    if let Some(text) = &line.seed_from {
        let url = expand(text, variable)?;
        let shown = crate::resources::shown(&url);
        if !url.ends_with('/') {
            return Err(LineError::NoSlash(shown));
        }
        let plain = url.starts_with('/');
        if !plain
            && !["http://", "https://", "file://"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
        {
            return Err(LineError::Scheme(shown));
        }
        line.seed_from = Some(match plain {
            true => format!("file://{url}"),
            false => url,
        });
    }
    Ok(Some(line))
}

/// Replaces `__dmi.NAME__` by what `variable` says.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, LineError> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("__dmi.") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once("__") else {
            out.push_str("__dmi.");
            rest = after;
            continue;
        };
        let value =
            variable(name).ok_or_else(|| LineError::Variable(name.chars().take(60).collect()))?;
        out.push_str(&value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// `meta-data`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoCloudData {
    /// `instance-id`.
    pub instance_id: Option<String>,
    /// `local-hostname` or `hostname`.
    pub hostname: Option<String>,
    /// `public-keys`.
    pub public_keys: Vec<String>,
    /// `network-interfaces`, the form of Debian's file, is there: it is not supported.
    pub has_interfaces_file: bool,
    /// `network`: a configuration in place.
    pub seed_from: Option<String>,
}

/// Reads `meta-data`, YAML or JSON. An empty one says nothing.
///
/// # Errors
/// It is no YAML.
pub fn meta_data(bytes: &[u8]) -> Result<NoCloudData, yaml::YamlError> {
    let root = yaml::parse(bytes)?;
    let text = |names: &[&str]| {
        names
            .iter()
            .find_map(|name| root.get(name)?.text())
            .map(str::to_owned)
    };
    Ok(NoCloudData {
        instance_id: text(&["instance-id", "instance_id"]),
        hostname: text(&["local-hostname", "local_hostname", "hostname"]),
        public_keys: root
            .get("public-keys")
            .or_else(|| root.get("public_keys"))
            .map(keys)
            .unwrap_or_default(),
        has_interfaces_file: root.get("network-interfaces").is_some(),
        seed_from: text(&["seedfrom"]),
    })
}

/// Keys as a text, a list, or a mapping of names to either, or to `openssh-key`.
pub(crate) fn keys(node: &YamlNode) -> Vec<String> {
    let mut found = Vec::new();
    collect(node, &mut found, 0);
    found
}

fn collect(node: &YamlNode, found: &mut Vec<String>, depth: usize) {
    if let Some(text) = node.text() {
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !found.iter().any(|known| known == line) {
                found.push(line.to_owned());
            }
        }
    } else if depth < 4 {
        for item in node.list().unwrap_or_default() {
            collect(item, found, depth + 1);
        }
        for entry in node.map().unwrap_or_default() {
            collect(&entry.node, found, depth + 1);
        }
    }
}

/// The files of a seed, as they lie on a disk or behind a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// `meta-data`.
    pub meta_data: Option<Bytes>,
    /// `user-data`.
    pub user_data: Option<Bytes>,
    /// `vendor-data`.
    pub vendor_data: Option<Bytes>,
    /// `network-config`.
    pub network_config: Option<Bytes>,
}

impl Files {
    /// The file that a seed must have and this one lacks.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        match (&self.meta_data, &self.user_data) {
            (None, _) => Some("meta-data"),
            (_, None) => Some("user-data"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Line>, LineError> {
        line(text, |name| {
            (name == "system-uuid").then(|| "u-1".to_owned())
        })
    }

    #[test]
    fn the_line_in_all_forms() {
        let full = read("nocloud;s=http://10.0.0.1/x/;h=web;i=id1")
            .unwrap()
            .unwrap();
        assert_eq!(full.seed_from.as_deref(), Some("http://10.0.0.1/x/"));
        assert_eq!(full.hostname.as_deref(), Some("web"));
        assert_eq!(full.instance_id.as_deref(), Some("id1"));
        let long = read("nocloud-net;seedfrom=https://a/;local-hostname=b;instance-id=c").unwrap();
        assert_eq!(long.unwrap().hostname.as_deref(), Some("b"));
        assert_eq!(read("nocloud").unwrap(), Some(Line::default()));
        assert_eq!(read("openstack").unwrap(), None);
        assert_eq!(read("PC-1234").unwrap(), None);
        let dmi = read("nocloud;s=http://a/__dmi.system-uuid__/")
            .unwrap()
            .unwrap();
        assert_eq!(dmi.seed_from.as_deref(), Some("http://a/u-1/"));
        let file = read("nocloud;s=/var/seed/").unwrap().unwrap();
        assert_eq!(file.seed_from.as_deref(), Some("file:///var/seed/"));
    }

    #[test]
    fn faults_of_the_line_are_named() {
        assert!(matches!(
            read("nocloud;s=http://a/b"),
            Err(LineError::NoSlash(_))
        ));
        assert!(matches!(
            read("nocloud;s=ftp://a/b/"),
            Err(LineError::Scheme(_))
        ));
        assert!(matches!(
            read("nocloud;s=http://a/__dmi.x__/"),
            Err(LineError::Variable(_))
        ));
    }

    #[test]
    fn meta_data_in_all_forms() {
        let data = meta_data(b"instance-id: i-1\nlocal-hostname: web\npublic-keys:\n  a: ssh-rsa A\n  b: [ssh-rsa B]\n").unwrap();
        assert_eq!(data.instance_id.as_deref(), Some("i-1"));
        assert_eq!(data.public_keys, ["ssh-rsa A", "ssh-rsa B"]);
        let json = meta_data(br#"{"instance-id": "x", "hostname": "h"}"#).unwrap();
        assert_eq!(json.hostname.as_deref(), Some("h"));
        assert_eq!(meta_data(b"").unwrap(), NoCloudData::default());
        assert!(meta_data(b"a: [").is_err());
    }
}
