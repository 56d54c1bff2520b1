//! The check of stored images: the body of `POST /host/v1/images/verify`, and the lines of JSON in
//! its answer.

use serde::{Deserialize, Serialize};

/// The body of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Images by name or identifier. All images if it is empty.
    #[serde(default)]
    pub images: Vec<String>,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyLine {
    /// The first line: what will be read.
    Started {
        /// Images.
        images: u64,
        /// Layers, each counted once.
        layers: u64,
        /// Bytes of all files to be read.
        bytes: u64,
    },
    /// The progress.
    Progress {
        /// Bytes read so far.
        bytes: u64,
    },
    /// An object is damaged.
    Damaged(Damage),
    /// The last line: everything was checked.
    Finished {
        /// Damaged objects.
        damaged: u64,
        /// Bytes read.
        bytes: u64,
    },
}

/// A damaged object of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// `layer`, `configuration`, `manifest`, `record` or `names`.
    pub kind: String,
    /// Its digest; empty when it has none.
    pub digest: String,
    /// The file or directory.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// The images that need it, by name if they have one.
    pub images: Vec<String>,
    /// What to do.
    pub remedy: String,
}
