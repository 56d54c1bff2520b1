//! The volumes of plugins that are mounted, and their users. There is a file for each use: it is
//! written before the plugin is asked to mount, and removed after it has unmounted. So a hostd that
//! was killed in between knows what to unmount. The files disappear at a reboot, like the mounts.
//! Unreadable files are kept, because a later hostd may understand them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use keelson_store::document::Rest;
use keelson_store::{Document, Durability, Era, document, file};
use serde::{Deserialize, Serialize};

use crate::VolumeError;
use crate::lock::lock;
use crate::name;

/// Largest file in bytes.
const LONGEST: u64 = 64 << 10;
/// The next engine that reads them may be an older one, at any time.
const ERA: Era = Era::Trial;

/// A use: the volume and its user.
pub(crate) type Use = (String, String);

/// The record of a use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) volume: String,
    pub(crate) user: String,
    pub(crate) driver: String,
    /// `None`: the plugin was asked to mount it, and has not returned the path yet.
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
    #[serde(flatten)]
    pub(crate) rest: Rest,
}

impl Document for Record {
    const VERSION: u32 = 1;
}

/// All uses.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: PathBuf,
    records: Mutex<BTreeMap<Use, (PathBuf, Record)>>,
}

impl Ledger {
    /// Reads the files of an earlier hostd.
    pub(crate) fn open(directory: &Path) -> Self {
        let mut records = BTreeMap::new();
        for path in files(directory) {
            match read(&path) {
                Ok(record) => {
                    let key = (record.volume.clone(), record.user.clone());
                    records.insert(key, (path, record));
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "use of a volume can't be read; its plugin is not asked to unmount it");
                }
            }
        }
        Self {
            directory: directory.to_owned(),
            records: Mutex::new(records),
        }
    }

    /// Records that a plugin will be asked to mount, or where it has mounted.
    pub(crate) fn write(&self, record: Record) -> Result<(), VolumeError> {
        let key = (record.volume.clone(), record.user.clone());
        let mut records = lock(&self.records);
        let path = match records.get(&key) {
            Some((path, _)) => path.clone(),
            None => self.directory.join(name::generate()),
        };
        fs::create_dir_all(&self.directory).map_err(VolumeError::io("mkdir", &self.directory))?;
        document::write(&path, &record, ERA, Durability::Relaxed)?;
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

/// The files of a directory, which is created for the first use.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::error!(path = %directory.display(), %error, "uses of volumes not read");
            }
            return Vec::new();
        }
    };
    let paths = entries.filter_map(|entry| match entry {
        Ok(entry) => Some(entry.path()),
        Err(error) => {
            tracing::error!(path = %directory.display(), %error, "uses of volumes not all read");
            None
        }
    });
    let is_whole = |path: &PathBuf| !path.file_name().is_some_and(file::is_temporary);
    paths.filter(is_whole).collect()
}

fn read(path: &Path) -> Result<Record, VolumeError> {
    let found = fs::symlink_metadata(path).map_err(VolumeError::io("stat", path))?;
    if !found.is_file() || found.len() > LONGEST {
        let error = std::io::Error::from(ErrorKind::InvalidData);
        return Err(VolumeError::io("read", path)(error));
    }
    let gone = || VolumeError::io("read", path)(ErrorKind::NotFound.into());
    document::read(path)?.ok_or_else(gone)
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
            rest: Rest::default(),
        };
        ledger.write(record.clone()).unwrap();
        record.path = Some("/x".into());
        ledger.write(record.clone()).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        let half = directory.join("half");
        fs::write(&half, "{").unwrap();
        let ledger = Ledger::open(&directory);
        assert_eq!(ledger.all(), std::slice::from_ref(&record));
        assert_eq!(ledger.get("a/b", "c"), Some(record));
        ledger.forget("a/b", "c");
        assert_eq!(ledger.get("a/b", "c"), None);
        assert_eq!(files(&directory), [half], "what can't be read stays");
    }

    /// One of each version, as it was written by the release that introduced it. Never changed.
    const GOLDEN: &[(u32, &str)] = &[(
        1,
        r#"{"version":1,"readable_from":1,"volume":"a","user":"b","driver":"c","path":"/d"}"#,
    )];

    #[test]
    fn documents_of_every_version_are_read() {
        document::assert_goes_back::<Record>(GOLDEN);
    }
}
