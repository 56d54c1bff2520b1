//! For the fuzz targets: what reads bytes from outside and has no public name.

use serde_json::json;

use crate::cdi;

/// A document of a vendor: each of its devices can be asked for, and changes a configuration.
pub fn described_devices(bytes: &[u8]) {
    let Ok((document, names)) = cdi::read(bytes) else {
        return;
    };
    for name in names {
        let Ok(edits) = cdi::choose_one(&document, &name) else {
            // Two of the same name.
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
