//! The leases on disk, so that a link keeps its address over a reboot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::arp::Mac;
use super::lease::Lease;
use super::machine::Time;
use crate::files::{self, FileError};

const VERSION: u32 = 1;
/// Longer files were not written by this program.
const MAX_BYTES: u64 = 64 << 10;

/// One file of the directory: `<link>.json`.
///
/// Members that a newer release added are skipped: its `readable_from` says whether this release
/// can work without them. This one does not write that member, because the releases before it
/// refuse what they do not know.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    /// The oldest version whose readers understand the file; `version` itself when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    readable_from: Option<u32>,
    /// The link's hardware address: another card in the same slot is another client.
    mac: Mac,
    /// Seconds since 1970 at which the lease began.
    granted: u64,
    lease: Lease,
}

/// Why a lease could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file could not be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file could not be read.
    #[error("read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// The file does not have the format of this version.
    #[error("{path} is not a lease file: {reason}")]
    Format { path: PathBuf, reason: String },
}

/// The directory of lease files.
#[derive(Debug, Clone)]
pub(crate) struct LeaseStore {
    dir: PathBuf,
}

impl LeaseStore {
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            dir: state.join("leases"),
        }
    }

    fn path(&self, link: &str) -> PathBuf {
        self.dir.join(format!("{link}.json"))
    }

    /// Stores a lease that began at `granted` on the clock of the state machine.
    pub(crate) fn save(
        &self,
        link: &str,
        mac: Mac,
        lease: &Lease,
        granted: Time,
        now: Time,
    ) -> Result<(), StoreError> {
        let age = now.saturating_sub(granted);
        let document = Document {
            version: VERSION,
            readable_from: None,
            mac,
            granted: unix_now().saturating_sub(age).as_secs(),
            lease: lease.clone(),
        };
        let path = self.path(link);
        let text = serde_json::to_vec_pretty(&document).map_err(|error| StoreError::Format {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(files::write_durable(&path, &text)?)
    }

    /// The stored lease of a link, and when it began on the state machine's clock. The time is
    /// `None` if the lease began before that clock did (before the machine booted), or if the wall
    /// clock is before it, as on machines whose clock stops while they are off.
    pub(crate) fn load(
        &self,
        link: &str,
        mac: Mac,
        now: Time,
    ) -> Result<Option<(Lease, Option<Time>)>, StoreError> {
        let path = self.path(link);
        let format = |reason: String| StoreError::Format {
            path: path.clone(),
            reason,
        };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(format("it is too long".to_owned()));
            }
            _ => fs::read(&path).map_err(|source| StoreError::Read {
                path: path.clone(),
                source,
            })?,
        };
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|error| format(error.to_string()))?;
        let readable_from = document.readable_from.unwrap_or(document.version);
        if document.version == 0 || readable_from > VERSION {
            return Err(format(format!(
                "it has version {}, readable from version {readable_from}; this release knows \
                 version {VERSION}",
                document.version
            )));
        }
        document
            .lease
            .check()
            .map_err(|error| format(error.to_string()))?;
        if document.mac != mac {
            return Ok(None);
        }
        let age = unix_now().checked_sub(Duration::from_secs(document.granted));
        let granted = age.and_then(|age| now.checked_sub(age));
        let expired = match age {
            Some(age) => {
                !document.lease.is_infinite()
                    && age >= Duration::from_secs(document.lease.seconds.into())
            }
            None => false,
        };
        if expired {
            return Ok(None);
        }
        Ok(Some((document.lease, granted)))
    }

    /// Removes a link's lease.
    pub(crate) fn remove(&self, link: &str) -> Result<(), StoreError> {
        Ok(files::remove(&self.path(link))?)
    }
}

fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::machine_tests::lease;
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_lease_comes_back_with_its_age() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(dir.path());
        let now = Duration::from_secs(1000);
        assert!(store.load("eth0", MAC, now).unwrap().is_none());
        let granted = now - Duration::from_secs(40);
        store.save("eth0", MAC, &lease(), granted, now).unwrap();
        let (found, began) = store.load("eth0", MAC, now).unwrap().unwrap();
        assert_eq!(found, lease());
        let error = began.unwrap().abs_diff(granted);
        assert!(error <= Duration::from_secs(2), "{error:?}");
        assert!(store.load("eth0", [9; 6], now).unwrap().is_none());
        store.remove("eth0").unwrap();
        assert!(store.load("eth0", MAC, now).unwrap().is_none());
    }

    #[test]
    fn a_lease_that_ended_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(dir.path());
        let now = Duration::from_secs(100_000);
        let granted = now - Duration::from_secs(u64::from(lease().seconds) + 1);
        store.save("eth0", MAC, &lease(), granted, now).unwrap();
        assert!(store.load("eth0", MAC, now).unwrap().is_none());
    }

    #[test]
    fn the_file_migrates_forward_and_back() {
        let golden = include_str!("../../tests/golden/lease.1.json");
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(dir.path());
        let now = Duration::from_secs(1000);
        let path = store.path("eth0");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, golden).unwrap();
        let (found, _) = store.load("eth0", MAC, now).unwrap().unwrap();
        assert!(found.is_infinite());
        // The releases before refuse members that they do not know: there is none.
        store.save("eth0", MAC, &found, now, now).unwrap();
        let value = |text: &str| {
            let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
            value["granted"] = serde_json::Value::from(0);
            value
        };
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(value(&written), value(golden));
        // A newer file that this release can read, and one that it can't.
        for (oldest, readable) in [(1, true), (2, false)] {
            let versions = format!("\"version\": 2, \"readable_from\": {oldest}, \"newer\": 1");
            fs::write(&path, golden.replacen("\"version\": 1", &versions, 1)).unwrap();
            let loaded = store.load("eth0", MAC, now);
            assert_eq!(loaded.is_ok(), readable, "{loaded:?}");
        }
    }

    #[test]
    fn damaged_files_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(dir.path());
        let now = Duration::from_secs(1000);
        let path = store.path("eth0");
        store.save("eth0", MAC, &lease(), now, now).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("192.0.2.50", "224.0.0.1"),
            ("\"version\": 1", "\"version\": 9"),
            ("\"prefix\": 24", "\"prefix\": 64"),
            ("{", ""),
        ] {
            fs::write(&path, good.replacen(from, to, 1)).unwrap();
            assert!(store.load("eth0", MAC, now).is_err(), "{from} → {to}");
        }
    }
}
