//! The documents of the store.

use std::collections::BTreeMap;

use keelson_oci::digest::Digest;
use keelson_store::{Document, Rest};
use serde::{Deserialize, Serialize};

/// `images/<id>.json`: an image whose configuration and layers are complete on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the configuration, which lies in `blobs/`.
    pub id: Digest,
    /// The manifest that the image came with, when it came with one; it lies in `blobs/`, so that
    /// it can be given back unchanged.
    pub manifest: Option<Digest>,
    /// The image that it was built upon here.
    pub parent: Option<Digest>,
    /// Removed by force while somebody held it: kept for its holders, not shown.
    #[serde(default)]
    pub hidden: bool,
    /// What a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Document for ImageRecord {
    const VERSION: u32 = 1;
}

/// `repositories.json`: which name stands for which image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repositories {
    /// By full reference: `docker.io/library/busybox:latest`.
    pub references: BTreeMap<String, Tagged>,
    /// What a newer release wrote.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Document for Repositories {
    const VERSION: u32 = 1;
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tagged {
    /// The image.
    pub id: Digest,
    /// When the name was given: RFC 3339.
    pub time: String,
    /// What a newer release wrote.
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
