//! For the fuzz targets: parsers of bytes from outside that have no public name.

use serde_json::json;

use crate::cdi;

/// Parses a vendor's document, and applies each of its devices to a configuration.
pub fn described_devices(bytes: &[u8]) {
    let Ok((document, names)) = cdi::read(bytes) else {
        return;
    };
    for name in names {
        let Ok(edits) = cdi::choose_one(&document, &name) else {
            // Two devices have the same name.
            continue;
        };
        let mut config = json!({
            "process": {"env": ["A=b"], "user": {"additionalGids": []}},
            "mounts": [],
        });
        cdi::apply(&edits, &mut config);
        assert!(config["mounts"].is_array() && config["process"]["env"].is_array());
    }
}
