//! Reading the layers from files, and keeping the last good copy.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use keelson_files::Durability;
use keelson_model::error::ErrorKind;
use keelson_model::host::MachineConfig;
use serde::Deserialize;
use toml::Table;

use crate::layer::{MAX_LAYER_BYTES, parse};
use crate::merge::merge;
use crate::problem::Problem;

/// Most files of a `host.toml.d` directory that are read.
const MAX_DROP_INS: usize = 256;

/// The paths of the layers. A file that does not exist is an empty layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Files below the operator's, lowest first: image, then platform.
    pub base: Vec<PathBuf>,
    /// The operator's file.
    pub operator: PathBuf,
    /// Directory of the operator's other files (`*.toml`, in the order of their names).
    pub operator_dir: PathBuf,
    /// The copy that [`save_last_good`] keeps.
    pub last_good: PathBuf,
}

impl Sources {
    /// The sources of a running machine.
    #[must_use]
    pub fn machine() -> Self {
        Self::under(Path::new("/"))
    }

    /// The same layout below another directory, for tests and for images.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            base: vec![
                root.join("usr/lib/keelson/host.toml"),
                root.join("sys/firmware/qemu_fw_cfg/by_name/opt/io.keelson/host.toml/raw"),
            ],
            operator: root.join("etc/keelson/host.toml"),
            operator_dir: root.join("etc/keelson/host.toml.d"),
            last_good: root.join("var/lib/keelson/host/last-good.toml"),
        }
    }
}

/// The effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// All layers that are good, merged.
    pub config: MachineConfig,
    /// What is wrong with the others. A caller logs these; none of them may stop it.
    pub problems: Vec<Problem>,
    /// The files that the configuration was made of, lowest first.
    pub layers: Vec<PathBuf>,
    /// The operator's files merged. `None` if one of them is wrong.
    operator: Option<Table>,
}

impl LoadedConfig {
    /// Whether the last good copy stands in for the operator's files.
    #[must_use]
    pub fn operator_is_broken(&self) -> bool {
        self.operator.is_none()
    }
}

/// Reads all layers. Never fails: the crate's documentation says how bad layers are handled.
#[must_use]
pub fn load(sources: &Sources) -> LoadedConfig {
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    let mut table = Table::new();
    for file in &sources.base {
        match read_layer(file) {
            Ok(Some(layer)) => {
                merge(&mut table, layer);
                layers.push(file.clone());
            }
            Ok(None) => {}
            Err(found) => problems.extend(found),
        }
    }

    let (operator, files, found) = read_operator(sources);
    let broken = !found.is_empty();
    problems.extend(found);
    if broken {
        match read_layer(&sources.last_good) {
            Ok(Some(last_good)) => {
                merge(&mut table, last_good);
                layers.push(sources.last_good.clone());
            }
            // There is no last good copy: the correct files of the operator are better than none.
            Ok(None) => {
                merge(&mut table, operator.clone());
                layers.extend(files);
            }
            Err(found) => {
                problems.extend(found);
                merge(&mut table, operator.clone());
                layers.extend(files);
            }
        }
    } else {
        merge(&mut table, operator.clone());
        layers.extend(files);
    }

    // Each layer was checked against the same types, so this should not fail. If it does, the
    // machine still boots.
    let config = match MachineConfig::deserialize(table) {
        Ok(config) => config,
        Err(error) => {
            problems.push(Problem::of_file(
                &sources.operator,
                format!("the layers cannot be merged: {error}"),
                "the built-in configuration is used",
            ));
            layers.clear();
            MachineConfig::default()
        }
    };
    LoadedConfig {
        config,
        problems,
        layers,
        operator: (!broken).then_some(operator),
    }
}

/// The operator's files merged, the names of the good ones, and the problems.
fn read_operator(sources: &Sources) -> (Table, Vec<PathBuf>, Vec<Problem>) {
    let mut table = Table::new();
    let mut good = Vec::new();
    let mut problems = Vec::new();
    let mut files = vec![sources.operator.clone()];
    match drop_ins(&sources.operator_dir) {
        Ok(found) => files.extend(found),
        Err(problem) => problems.push(*problem),
    }
    for file in files {
        match read_layer(&file) {
            Ok(Some(layer)) => {
                merge(&mut table, layer);
                good.push(file);
            }
            Ok(None) => {}
            Err(found) => problems.extend(found),
        }
    }
    (table, good, problems)
}

/// The `*.toml` files of a directory, sorted by name. Hidden files are editors' leftovers.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let unreadable = |error: io::Error| {
        Box::new(Problem::of_file(
            dir,
            format!("the directory cannot be read: {error}"),
            "make it a directory that root can read",
        ))
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    if files.len() > MAX_DROP_INS {
        return Err(Box::new(Problem::of_file(
            dir,
            format!("the directory has {} files", files.len()),
            "keep at most 256",
        )));
    }
    files.sort();
    Ok(files)
}

/// Reads one file; `None` when it doesn't exist.
fn read_layer(file: &Path) -> Result<Option<Table>, Vec<Problem>> {
    let unreadable = |error: io::Error| {
        vec![Problem::of_file(
            file,
            format!("the file cannot be read: {error}"),
            "make it a plain file that root can read",
        )]
    };
    // If the file were a FIFO, opening it would block the boot forever.
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => {
            return Err(vec![Problem::of_file(
                file,
                "this is not a plain file".to_owned(),
                "make it a plain file",
            )]);
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, so that `parse` sees that it is too long.
    File::open(file)
        .and_then(|open| {
            open.take(MAX_LAYER_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(unreadable)?;
    parse(&bytes, file).map(|layer| Some(layer.table))
}

/// Why the last good copy could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// One of the operator's files is wrong, so there is nothing good to keep.
    #[error("the operator's configuration has errors and is not kept as the last good one")]
    NotGood,
    /// The table cannot be written as TOML.
    #[error("the configuration cannot be written as TOML: {0}")]
    Serialize(#[from] toml::ser::Error),
    /// A file operation failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// The operation: `create`, `write`, `fsync`, `rename`, ….
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl From<keelson_files::FileError> for SaveError {
    fn from(error: keelson_files::FileError) -> Self {
        Self::Io {
            operation: error.operation,
            path: error.path,
            source: error.source,
        }
    }
}

impl SaveError {
    /// The kind of the error for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotGood => ErrorKind::Conflict,
            Self::Serialize(_) | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

/// Stores the operator's present configuration, for use when a later edit is wrong.
///
/// # Errors
/// [`SaveError::NotGood`] when one of the files is wrong; nothing is written then.
pub fn save_last_good(loaded: &LoadedConfig, sources: &Sources) -> Result<(), SaveError> {
    let operator = loaded.operator.as_ref().ok_or(SaveError::NotGood)?;
    let text = toml::to_string(operator)?;
    let path = &sources.last_good;
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(|source| SaveError::Io {
        operation: "create",
        path: dir.to_owned(),
        source,
    })?;
    // Left by a run that ended in a power cut.
    keelson_files::sweep_dead(dir)?;
    keelson_files::write(path, text.as_bytes(), 0o600, Durability::Flushed)?;
    Ok(())
}
