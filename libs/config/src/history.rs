//! Copies of every file of the operator that a change replaced or took back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keelson_files::Durability;

use crate::error::SaveError;
use crate::sources::Sources;
use crate::trial::make_directory;

/// How many copies are kept.
const KEPT: usize = 32;

/// The copy of this name.
pub(crate) fn path(sources: &Sources, name: &str) -> PathBuf {
    sources.memory("history").join(name)
}

/// Keeps a copy of the file and returns its name; `None` if the file does not exist.
pub(crate) fn keep(sources: &Sources, file: &Path) -> Result<Option<String>, SaveError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| SaveError::Io {
            operation,
            path,
            source,
        }
    };
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", file)(error)),
    };
    let directory = sources.memory("history");
    make_directory(&directory)?;
    keelson_files::sweep_dead(&directory)?;
    let entries = fs::read_dir(&directory).map_err(failed("read", &directory))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| number(name).is_some())
        .collect();
    names.sort();
    let next = names.last().and_then(|name| number(name)).unwrap_or(0) + 1;
    let label = file.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{next:08}-{label}");
    keelson_files::write(&directory.join(&name), &bytes, 0o600, Durability::Flushed)?;
    let surplus = (names.len() + 1).saturating_sub(KEPT);
    for old in names.iter().take(surplus) {
        keelson_files::remove(&directory.join(old))?;
    }
    Ok(Some(name))
}

/// The number that a copy's name begins with.
fn number(name: &str) -> Option<u64> {
    name.split_once('-')?.0.parse().ok()
}
