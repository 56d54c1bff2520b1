//! What a source gave, in its own bytes. It is kept, so that a later release can translate it anew,
//! and so that a machine starts without its source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the kept document.
pub const VERSION: u32 = 1;

/// What one source said about one instance.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seed {
    /// Version of this document, [`VERSION`].
    pub version: u32,
    /// The oldest version whose readers understand it; `version` itself if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable_from: Option<u32>,
    /// Where it came from: `nocloud`, `ec2`, ….
    pub source: String,
    /// The place, for a person: a device, a URL.
    pub place: String,
    /// The name of this life of the machine: a new one means a first boot.
    pub instance_id: String,
    /// SMBIOS UUID of the machine that read it.
    pub machine: Option<String>,
    /// Names of the machine, possibly with dots.
    pub hostname: Option<String>,
    /// Keys for the default user.
    pub public_keys: Vec<String>,
    /// Network configuration.
    pub network: Option<NetworkDocument>,
    /// What the provider wants.
    pub vendor_data: Option<Bytes>,
    /// What the owner wants.
    pub user_data: Option<Bytes>,
    /// What the documents refer to, by URL.
    pub resources: BTreeMap<String, Bytes>,
}

/// Nothing of a seed belongs into a log: its documents hold secrets.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("source", &self.source)
            .field("instance_id", &self.instance_id)
            .finish_non_exhaustive()
    }
}

impl Seed {
    /// An empty one.
    #[must_use]
    pub fn new(source: &str, place: &str, instance_id: &str) -> Self {
        Self {
            version: VERSION,
            readable_from: Some(VERSION),
            source: source.to_owned(),
            place: place.to_owned(),
            instance_id: instance_id.to_owned(),
            ..Self::default()
        }
    }

    /// Whether both say the same about the machine, wherever and whenever they were read.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.hostname == other.hostname
            && self.public_keys == other.public_keys
            && self.network == other.network
            && self.vendor_data == other.vendor_data
            && self.user_data == other.user_data
    }
}

/// A network configuration in one of two formats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkDocument {
    /// cloud-init's, version 1 or 2.
    CloudInit(Bytes),
    /// OpenStack's `network_data.json`.
    Openstack(Bytes),
}

/// Bytes, kept as base64.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::prelude::BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        base64::prelude::BASE64_STANDARD
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}
