//! QEMU's firmware configuration: Ignition's file. (`opt/io.keelson/host.toml` is no seed but a layer
//! of its own, which goes over whatever a seed says, at each boot: see `keelson_config`.)

use super::{Context, Finding, Source, SourceError};
use crate::seed::{Bytes, Seed};

/// Where Ignition looks, too (its documentation, "Supported Platforms").
const FILE: &str = "opt/com.coreos/config";

pub(super) struct Firmware;

impl Source for Firmware {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError> {
        let bytes = context
            .machine
            .firmware_file(FILE)
            .map_err(|source| SourceError::Firmware { name: FILE, source })?;
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return Ok(Finding::Nothing);
        };
        // It names no instance. That of the machine is the only one that a copied disk lacks.
        let id = context
            .machine
            .uuid()
            .unwrap_or_else(|| "fw_cfg".to_owned());
        let mut seed = Seed::new(self.name(), FILE, &id);
        seed.user_data = Some(Bytes(bytes));
        Ok(Finding::Seed(Box::new(seed), Vec::new()))
    }
}
