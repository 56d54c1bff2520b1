//! The documents of the store.

use std::collections::BTreeMap;

use keelson_oci::digest::Digest;
use keelson_store::{Document, Rest};
use serde::{Deserialize, Serialize};

/// `images/<id>.json`: an image whose configuration and layers are complete on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the configuration, which is stored in `blobs/`.
    pub id: Digest,
    /// The original manifest of the image, if it had one. It is stored in `blobs/`, so that it can
    /// be returned unchanged.
    pub manifest: Option<Digest>,
    /// The image that it was built from on this machine.
    pub parent: Option<Digest>,
    /// It was removed by force while it was held: it is kept for its holders, and not shown.
    #[serde(default)]
    pub hidden: bool,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Document for ImageRecord {
    const VERSION: u32 = 1;
}

/// `repositories.json`: the names, and the image of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repositories {
    /// By full reference: `docker.io/library/busybox:latest`.
    pub references: BTreeMap<String, Tagged>,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Document for Repositories {
    const VERSION: u32 = 1;
}

/// The target of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tagged {
    /// The image.
    pub id: Digest,
    /// When the name was set: RFC 3339.
    pub time: String,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Tagged {
    pub(crate) fn new(id: Digest, time: String) -> Self {
        Self {
            id,
            time,
            rest: Rest::default(),
        }
    }
}
