//! Reading the layers from files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use keelson_model::host::MachineConfig;
use serde::Deserialize;
use toml::Table;

use crate::command_line;
use crate::layer::{Layer, MAX_LAYER_BYTES, parse};
use crate::loaded::LoadedConfig;
use crate::merge::{Merged, merge};
use crate::origin::LayerKind;
use crate::problem::Problem;
use crate::sources::Sources;
use crate::{not_built, trial};

/// Most files of one directory that are read.
const MAX_FILES: usize = 256;

/// Reads and merges all layers. Never fails: the crate's documentation says how bad layers are
/// handled.
#[must_use]
pub fn load(sources: &Sources) -> LoadedConfig {
    assemble(sources, None)
}

/// A text that takes the place of one of the operator's files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instead<'a> {
    pub(crate) file: &'a Path,
    pub(crate) text: &'a [u8],
}

/// Reads and merges all layers, with `instead` in the place of its file.
pub(crate) fn assemble(sources: &Sources, instead: Option<Instead<'_>>) -> LoadedConfig {
    let mut building = Building::default();
    building.file(LayerKind::Image, &sources.image);
    // A file that is wrong costs its own service, and no other.
    match toml_files(&sources.services) {
        Ok(files) => {
            for file in files {
                building.file(LayerKind::Image, &file);
            }
        }
        Err(problem) => building.problems.push(*problem),
    }
    building.command_line(&sources.command_line);
    for file in &sources.platform {
        building.file(LayerKind::Platform, file);
    }

    let (layers, found) = read_operator(sources, instead);
    let broken = !found.is_empty();
    building.problems.extend(found);
    let mut operator = Table::new();
    for layer in &layers {
        merge(&mut operator, layer.table.clone());
    }
    let given_up = match (broken, instead) {
        (false, None) => trial::given_up(sources, &operator),
        _ => None,
    };
    if let Some(reason) = &given_up {
        building.notices.push(reason.clone());
    }
    let replaced = (broken || given_up.is_some()) && building.last_good(&sources.last_good());
    if !replaced {
        // There is no last good copy: the correct files of the operator are better than none.
        for layer in layers {
            building.add(LayerKind::Operator, layer);
        }
    }
    let operator = (!broken && given_up.is_none()).then_some(operator);
    building.finish(&sources.operator, operator)
}

#[derive(Default)]
struct Building {
    merged: Merged,
    layers: Vec<PathBuf>,
    problems: Vec<Problem>,
    notices: Vec<String>,
}

impl Building {
    fn add(&mut self, kind: LayerKind, layer: Layer) {
        self.problems.extend(not_built::warnings(&layer));
        self.layers.push(layer.file.clone());
        self.merged.add(kind, layer);
    }

    fn file(&mut self, kind: LayerKind, file: &Path) {
        match read_layer(file) {
            Ok(Some(layer)) => self.add(kind, layer),
            Ok(None) => {}
            Err(found) => self.problems.extend(found),
        }
    }

    fn command_line(&mut self, file: &Path) {
        // Absent in tests; the kernel's own is at most 4 KiB long.
        let Ok(bytes) = fs::read(file) else { return };
        match command_line::layer(&bytes) {
            Ok(Some(layer)) => self.add(LayerKind::CommandLine, layer),
            Ok(None) => {}
            Err(found) => self.problems.extend(found),
        }
    }

    /// Returns whether there is one.
    fn last_good(&mut self, file: &Path) -> bool {
        match read_layer(file) {
            Ok(Some(layer)) => {
                self.add(LayerKind::LastGood, layer);
                true
            }
            Ok(None) => false,
            Err(found) => {
                self.problems.extend(found);
                false
            }
        }
    }

    fn finish(mut self, operator_file: &Path, operator: Option<Table>) -> LoadedConfig {
        // Each layer was checked against the same types, so this should not fail. If it does, the
        // machine still boots.
        let config = match MachineConfig::deserialize(self.merged.table.clone()) {
            Ok(config) => config,
            Err(error) => {
                self.problems.push(Problem::of_file(
                    operator_file,
                    format!("the layers cannot be merged: {error}"),
                    "the built-in configuration is used",
                ));
                self.layers.clear();
                self.merged = Merged::default();
                MachineConfig::default()
            }
        };
        LoadedConfig {
            config,
            origins: self.merged.origins,
            problems: self.problems,
            notices: self.notices,
            layers: self.layers,
            table: self.merged.table,
            operator,
        }
    }
}

/// The operator's good files in order, and the problems of the others.
pub(crate) fn read_operator(
    sources: &Sources,
    instead: Option<Instead<'_>>,
) -> (Vec<Layer>, Vec<Problem>) {
    let mut good = Vec::new();
    let mut problems = Vec::new();
    let mut files = Vec::new();
    match toml_files(&sources.operator_dir) {
        Ok(found) => files.extend(found),
        Err(problem) => problems.push(*problem),
    }
    if let Some(instead) = instead
        && instead.file != sources.operator
        && !files.iter().any(|file| file == instead.file)
    {
        files.push(instead.file.to_owned());
        files.sort();
    }
    files.insert(0, sources.operator.clone());
    for file in files {
        let read = match instead.filter(|instead| instead.file == file) {
            Some(instead) => parse(instead.text, &file).map(Some),
            None => read_layer(&file),
        };
        match read {
            Ok(Some(layer)) => good.push(layer),
            Ok(None) => {}
            Err(found) => problems.extend(found),
        }
    }
    (good, problems)
}

/// The `*.toml` files of a directory, sorted by name. Hidden files are editors' leftovers.
fn toml_files(dir: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
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
    if files.len() > MAX_FILES {
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
pub(crate) fn read_layer(file: &Path) -> Result<Option<Layer>, Vec<Problem>> {
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
    parse(&bytes, file).map(Some)
}
