//! Figures that tests measure, collected in one JSON file by name.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::HarnessError;
use super::provision::write_private;

/// Sets the figure `name` in the file at `path`, beside those of other tests.
///
/// # Errors
/// The file can't be written.
pub fn record(path: &Path, name: &str, value: Value) -> Result<(), HarnessError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(HarnessError::io("create", dir))?;
    }
    let lock_path = path.with_extension("lock");
    let lock = File::create(&lock_path).map_err(HarnessError::io("create", &lock_path))?;
    lock.lock().map_err(HarnessError::io("lock", &lock_path))?;
    let mut all: Map<String, Value> = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(e) => return Err(HarnessError::io("read", path)(e)),
    };
    println!("measured: {name} = {value}");
    all.insert(name.to_owned(), value);
    let text = serde_json::to_string_pretty(&all)
        .map_err(|e| HarnessError::io("encode", path)(io::Error::other(e)))?;
    write_private(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_others_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/measurements.json");
        record(&file, "a", 1.into()).unwrap();
        record(&file, "b", 2.into()).unwrap();
        record(&file, "a", 3.into()).unwrap();
        let all: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(all, serde_json::json!({"a": 3, "b": 2}));
    }
}
