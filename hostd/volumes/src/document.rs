//! The document of a volume on disk.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keelson_store::Document;
use keelson_store::document::{Members, Misfit, Rest};
use serde::{Deserialize, Serialize};

use crate::types::LOCAL;

/// Name of the document. A volume exists while it has one.
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
    /// In version 2 the driver may be a plugin. An engine of version 1 would treat its volume as an
    /// empty one of its own.
    const VERSION: u32 = 2;
    const WRITES: u32 = 1;

    fn own_version(&self) -> Option<u32> {
        Some(if self.driver == LOCAL { 1 } else { 2 })
    }

    fn forward(_: u32, members: Members) -> Result<Members, Misfit> {
        Ok(members)
    }

    fn backward(_: u32, members: Members) -> Result<Members, Misfit> {
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use keelson_store::document::assert_goes_back;

    use super::*;

    const GOLDEN: [(u32, &str); 2] = [
        (1, include_str!("../tests/golden/volume.1.json")),
        (2, include_str!("../tests/golden/volume.2.json")),
    ];

    #[test]
    fn volume_json_goes_back() {
        assert_goes_back::<VolumeDocument>(&GOLDEN);
    }
}
