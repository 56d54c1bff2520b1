//! What is kept of a volume on disk.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keelson_store::Document;
use keelson_store::document::Rest;
use serde::{Deserialize, Serialize};

/// Name of the document that makes a volume exist.
pub(crate) const VOLUME: &str = "volume.json";
/// Name of the directory that containers see, beside the document.
pub(crate) const DATA: &str = "_data";

/// `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeDocument {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) created: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

impl Document for VolumeDocument {
    const VERSION: u32 = 1;
}

#[cfg(test)]
mod tests {
    use keelson_store::document::assert_goes_back;

    use super::*;

    const GOLDEN: [(u32, &str); 1] = [(1, include_str!("../tests/golden/volume.1.json"))];

    #[test]
    fn volume_json_goes_back() {
        assert_goes_back::<VolumeDocument>(&GOLDEN);
    }
}
