//! Which plugin's volumes are mounted for whom: a file for each use, written before the plugin is asked
//! to mount and removed when it has unmounted. So a hostd that was killed in between knows what to
//! unmount. The files are gone with the boot, as the mounts are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use keelson_store::{Durability, file};
use serde::{Deserialize, Serialize};

use crate::VolumeError;
use crate::lock::lock;
use crate::name;

/// Bytes of a file.
const LONGEST: u64 = 64 << 10;

/// A use: the volume and its user.
pub(crate) type Use = (String, String);

/// What is known of a use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) volume: String,
    pub(crate) user: String,
    pub(crate) driver: String,
    /// `None`: the plugin was asked to mount it, and did not say yet where.
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
}

/// All uses.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: PathBuf,
    records: Mutex<BTreeMap<Use, (PathBuf, Record)>>,
}

impl Ledger {
    /// Reads what an earlier hostd has left.
    pub(crate) fn open(directory: &Path) -> Self {
        let mut records = BTreeMap::new();
        // None was needed before.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match read(&path) {
                Some(record) => {
                    let key = (record.volume.clone(), record.user.clone());
                    records.insert(key, (path, record));
                }
                None => {
                    tracing::warn!(path = %path.display(), "use of a volume can't be read; forgotten");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Self {
            directory: directory.to_owned(),
            records: Mutex::new(records),
        }
    }

    /// Writes down that a plugin will be asked to mount, or where it did.
    pub(crate) fn write(&self, record: Record) -> Result<(), VolumeError> {
        let key = (record.volume.clone(), record.user.clone());
        let mut records = lock(&self.records);
        let path = match records.get(&key) {
            Some((path, _)) => path.clone(),
            None => self.directory.join(name::generate()),
        };
        let bytes = serde_json::to_vec(&record)
            .map_err(|error| VolumeError::io("write", &path)(error.into()))?;
        fs::create_dir_all(&self.directory).map_err(VolumeError::io("mkdir", &self.directory))?;
        file::write(&path, &bytes, 0o600, Durability::Relaxed)?;
        records.insert(key, (path, record));
        Ok(())
    }

    /// Forgets a use that has ended.
    pub(crate) fn forget(&self, volume: &str, user: &str) {
        let key = (volume.to_owned(), user.to_owned());
        if let Some((path, _)) = lock(&self.records).remove(&key)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "use of a volume not forgotten");
        }
    }

    /// A use.
    pub(crate) fn get(&self, volume: &str, user: &str) -> Option<Record> {
        let key = (volume.to_owned(), user.to_owned());
        lock(&self.records)
            .get(&key)
            .map(|(_, record)| record.clone())
    }

    /// All uses.
    pub(crate) fn all(&self) -> Vec<Record> {
        let records = lock(&self.records);
        records.values().map(|(_, record)| record.clone()).collect()
    }
}

fn read(path: &Path) -> Option<Record> {
    let found = fs::symlink_metadata(path).ok()?;
    if !found.is_file() || found.len() > LONGEST {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_outlive_their_writer() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("uses");
        let ledger = Ledger::open(&directory);
        let mut record = Record {
            volume: "a/b".to_owned(),
            user: "c".to_owned(),
            driver: "p".to_owned(),
            path: None,
        };
        ledger.write(record.clone()).unwrap();
        record.path = Some("/x".into());
        ledger.write(record.clone()).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::write(directory.join("half"), "{").unwrap();
        let ledger = Ledger::open(&directory);
        assert_eq!(ledger.all(), std::slice::from_ref(&record));
        assert_eq!(ledger.get("a/b", "c"), Some(record));
        ledger.forget("a/b", "c");
        assert_eq!(ledger.get("a/b", "c"), None);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}
