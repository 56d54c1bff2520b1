//! Network configuration of cloud-init, versions 1 and 2, and of OpenStack (`network_data.json`),
//! which is close to version 1.

mod parts;
mod v1;
mod v2;

pub mod openstack;
pub mod present;

use crate::notes::Notes;
use crate::settings::Network;
use crate::yaml::{self, YamlError};

/// Why a network configuration has no effect at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetworkError {
    /// It is no YAML.
    #[error("the network configuration can't be read: {0}")]
    Yaml(#[from] YamlError),
    /// It is neither version 1 nor 2.
    #[error("the network configuration has version {0:?}; 1 and 2 are supported")]
    Version(String),
}

/// Translates `network-config`. `None`: it says `config: disabled`.
///
/// # Errors
/// [`NetworkError`].
pub fn translate(text: &[u8], notes: &mut Notes) -> Result<Option<Network>, NetworkError> {
    let root = yaml::parse(text)?;
    // netplan's file has everything below `network`.
    let node = root.get("network").unwrap_or(&root);
    if node
        .get("config")
        .is_some_and(|config| config.text() == Some("disabled"))
    {
        return Ok(None);
    }
    match node.get("version").and_then(yaml::YamlNode::text) {
        Some("1") => Ok(Some(v1::translate(node, notes))),
        Some("2") => Ok(Some(v2::translate(node, notes))),
        // Older writers left the version out of netplan's form.
        None if node.get("ethernets").is_some() => Ok(Some(v2::translate(node, notes))),
        version => Err(NetworkError::Version(
            version.unwrap_or("none").chars().take(40).collect(),
        )),
    }
}
