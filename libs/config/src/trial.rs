//! The last good configuration, and the starts with one that has not become healthy yet.

use std::fs;

use keelson_files::Durability;
use keelson_model::format::DocumentFormat;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::SaveError;
use crate::loaded::LoadedConfig;
use crate::sources::Sources;

/// After how many starts that did not become healthy the last good configuration is used.
pub const MOST_UNHEALTHY_STARTS: u32 = 3;

/// Version of [`Starts`].
const VERSION: u32 = 1;
/// File of [`Starts`].
const FILE: &str = "starts.toml";

/// Starts with the same files of the operator, none of which became healthy.
#[derive(Debug, Serialize, Deserialize)]
struct Starts {
    #[serde(flatten)]
    format: DocumentFormat,
    /// The boot that was counted last.
    boot: String,
    /// How many there were.
    starts: u32,
    /// The operator's files, merged, as TOML.
    operator: String,
}

fn read(sources: &Sources) -> Option<Starts> {
    let text = fs::read_to_string(sources.memory(FILE)).ok()?;
    let starts: Starts = toml::from_str(&text).ok()?;
    starts.format.is_readable_by(VERSION).then_some(starts)
}

/// Why the last good configuration is used instead of these files of the operator; `None` if it is
/// not.
pub(crate) fn given_up(sources: &Sources, operator: &Table) -> Option<String> {
    let starts = read(sources)?;
    let same = toml::to_string(operator).is_ok_and(|text| text == starts.operator);
    let last_good = sources.last_good();
    if starts.starts <= MOST_UNHEALTHY_STARTS || !same || !last_good.is_file() {
        return None;
    }
    Some(format!(
        "the operator's configuration did not become healthy in {MOST_UNHEALTHY_STARTS} starts, so the \
         last good one ({}) is used until the operator's files change",
        last_good.display()
    ))
}

/// Counts a start of the machine with what was loaded; after that, load again. `boot` names the boot:
/// each counts once.
///
/// # Errors
/// The count can't be written. The machine can go on.
pub fn count_start(sources: &Sources, loaded: &LoadedConfig, boot: &str) -> Result<(), SaveError> {
    let Some(operator) = &loaded.operator else {
        // The last good configuration is in use already.
        return Ok(());
    };
    let operator = toml::to_string(operator)?;
    if fs::read(sources.last_good()).is_ok_and(|known| known == operator.as_bytes()) {
        return forget(sources);
    }
    let before = read(sources).filter(|starts| starts.operator == operator);
    if before.as_ref().is_some_and(|starts| starts.boot == boot) {
        return Ok(());
    }
    let starts = Starts {
        format: DocumentFormat::FIRST,
        boot: boot.to_owned(),
        starts: before.map_or(0, |starts| starts.starts).saturating_add(1),
        operator,
    };
    put(sources, FILE, &toml::to_string(&starts)?)
}

/// Remembers that the machine is healthy with this configuration: it is the last good one now.
///
/// # Errors
/// [`SaveError::NotGood`] when the operator's files are not what counts; nothing is written then.
pub fn save_last_good(loaded: &LoadedConfig, sources: &Sources) -> Result<(), SaveError> {
    let operator = loaded.operator.as_ref().ok_or(SaveError::NotGood)?;
    let text = toml::to_string(operator)?;
    let path = sources.last_good();
    if !fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
        make_directory(&sources.state)?;
        // Left by a run that ended in a power cut.
        keelson_files::sweep_dead(&sources.state)?;
        keelson_files::write(&path, text.as_bytes(), 0o600, Durability::Flushed)?;
    }
    forget(sources)
}

fn forget(sources: &Sources) -> Result<(), SaveError> {
    let path = sources.memory(FILE);
    if path.exists() {
        keelson_files::remove(&path)?;
    }
    Ok(())
}

/// Writes a file of the configuration's own state, readable by root only.
pub(crate) fn put(sources: &Sources, name: &str, text: &str) -> Result<(), SaveError> {
    let path = sources.memory(name);
    let directory = sources.state.join("config");
    make_directory(&directory)?;
    keelson_files::sweep_dead(&directory)?;
    keelson_files::write(&path, text.as_bytes(), 0o600, Durability::Flushed)?;
    Ok(())
}

pub(crate) fn make_directory(directory: &std::path::Path) -> Result<(), SaveError> {
    fs::create_dir_all(directory).map_err(|source| SaveError::Io {
        operation: "create",
        path: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first release wrote it. Never changed.
    const GOLDEN: &str = include_str!("../tests/golden/starts.1.toml");

    #[test]
    fn starts_that_other_releases_counted_are_read_if_they_say_so() {
        let root = tempfile::tempdir().unwrap();
        let sources = Sources::under(root.path());
        let path = sources.memory(FILE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let read_text = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&sources)
        };
        let starts = read_text(GOLDEN).unwrap();
        assert_eq!(starts.starts, 2);
        assert_eq!(starts.operator, "hostname = \"node-1\"\n");
        let again = read_text(&toml::to_string(&starts).unwrap()).unwrap();
        assert_eq!((again.boot, again.operator), (starts.boot, starts.operator));
        let newer = GOLDEN.replace("version = 1", "version = 2\nmore = true");
        assert_eq!(read_text(&newer).unwrap().starts, 2);
        assert!(read_text(&GOLDEN.replace("= 1\n", "= 2\n")).is_none());
    }
}
