//! The document of the merged configuration, which every program of the machine reads.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use keelson_files::Durability;
use keelson_model::host::MachineConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::SaveError;
use crate::load::load;
use crate::loaded::LoadedConfig;
use crate::origin::Origins;
use crate::problem::Problem;
use crate::sources::Sources;
use crate::trial::make_directory;

/// Largest document that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// 1.
    version: u32,
    layers: Vec<PathBuf>,
    notices: Vec<String>,
    config: Table,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operator: Option<Table>,
    origins: Origins,
    problems: Vec<Problem>,
}

/// The configuration as it was merged at boot. Where that was not done, as on a development machine,
/// or where it can't be read, the layers are merged now.
#[must_use]
pub fn current(sources: &Sources) -> LoadedConfig {
    read(sources).unwrap_or_else(|| load(sources))
}

fn read(sources: &Sources) -> Option<LoadedConfig> {
    let mut text = String::new();
    let file = fs::File::open(&sources.effective).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let document: Document = toml::from_str(&text).ok()?;
    if document.version != 1 {
        return None;
    }
    let config = MachineConfig::deserialize(document.config.clone()).ok()?;
    Some(LoadedConfig {
        config,
        origins: document.origins,
        problems: document.problems,
        notices: document.notices,
        layers: document.layers,
        table: document.config,
        operator: document.operator,
    })
}

/// Writes the merged configuration. Only root may read it: it may have secrets.
///
/// # Errors
/// The file can't be written; the old one is then untouched.
pub fn publish(sources: &Sources, loaded: &LoadedConfig) -> Result<(), SaveError> {
    let document = Document {
        version: 1,
        layers: loaded.layers.clone(),
        notices: loaded.notices.clone(),
        config: loaded.table.clone(),
        operator: loaded.operator.clone(),
        origins: loaded.origins.clone(),
        problems: loaded.problems.clone(),
    };
    let text = toml::to_string(&document)?;
    if let Some(directory) = sources.effective.parent() {
        make_directory(directory)?;
    }
    keelson_files::write(
        &sources.effective,
        text.as_bytes(),
        0o600,
        Durability::Relaxed,
    )?;
    Ok(())
}

/// Merges again after a change. The document is replaced if the machine has one.
///
/// # Errors
/// The file can't be written; the old one is then untouched.
pub fn refresh(sources: &Sources) -> Result<LoadedConfig, SaveError> {
    let loaded = load(sources);
    if sources.effective.exists() {
        publish(sources, &loaded)?;
    }
    Ok(loaded)
}
