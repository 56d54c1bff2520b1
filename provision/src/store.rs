//! The files of the provisioning: the seed, the layer and the status, for root only.

use std::path::{Path, PathBuf};

use keelson_files::{Durability, FileError};
use keelson_model::provision::{LAYER_FILE, ProvisionStatus, SEED_FILE, STATUS_FILE};
use toml::Table;

use crate::seed::{Seed, VERSION};

/// Largest kept seed, in bytes.
const MAX_SEED: u64 = 64 << 20;
const HEAD: &str = "# Written by keelson-provision from what the platform says. Changes here are lost:\n\
                    # write them into /etc/keelson/host.toml, which goes over this.\n\n";

/// The directory with the files.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// Why a file can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory can't be made.
    #[error("create {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The kept seed is there and can't be used. It is left alone.
    #[error("{}: {reason}", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A document can't be written as JSON or TOML.
    #[error("encode {0}: {1}")]
    Encode(&'static str, String),
}

impl Store {
    /// The files in `directory`.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Makes the directory, and removes what a crash left of writing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prepare(&self) -> Result<(), StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|source| StoreError::Directory {
                path: self.directory.clone(),
                source,
            })?;
        keelson_files::sweep_dead(&self.directory)?;
        Ok(())
    }

    /// The kept seed.
    ///
    /// # Errors
    /// It is there and can't be read, or a newer release wrote it.
    pub fn seed(&self) -> Result<Option<Seed>, StoreError> {
        let path = self.directory.join(SEED_FILE);
        let wrong = |reason: String| StoreError::Seed {
            path: path.clone(),
            reason,
        };
        let bytes = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > MAX_SEED => {
                return Err(wrong("it has more than 64 MiB".to_owned()));
            }
            _ => std::fs::read(&path).map_err(|error| wrong(error.to_string()))?,
        };
        let seed: Seed =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if seed.readable_from.unwrap_or(seed.version) > VERSION {
            return Err(wrong(format!(
                "a newer release wrote it (version {})",
                seed.version
            )));
        }
        Ok(Some(seed))
    }

    /// Keeps a seed.
    ///
    /// # Errors
    /// [`StoreError`]; the old one is there then.
    pub fn keep(&self, seed: &Seed) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(seed)
            .map_err(|error| StoreError::Encode(SEED_FILE, error.to_string()))?;
        self.write(SEED_FILE, &bytes).map(|_| ())
    }

    /// Writes the layer. Returns whether it is another one than before. An empty one is not made
    /// if there is none.
    ///
    /// # Errors
    /// [`StoreError`]; the old one is there then.
    pub fn write_layer(&self, table: &Table) -> Result<bool, StoreError> {
        if table.is_empty() && !self.directory.join(LAYER_FILE).exists() {
            return Ok(false);
        }
        let text = toml::to_string(table)
            .map_err(|error| StoreError::Encode(LAYER_FILE, error.to_string()))?;
        self.write(LAYER_FILE, format!("{HEAD}{text}").as_bytes())
    }

    /// Writes the status.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn write_status(&self, status: &ProvisionStatus) -> Result<(), StoreError> {
        let path = self.directory.join(STATUS_FILE);
        // A machine that starts often should not write each time that nothing happened.
        if let Ok(old) = std::fs::read(&path)
            && let Ok(old) = serde_json::from_slice::<ProvisionStatus>(&old)
            && (ProvisionStatus {
                when: status.when.clone(),
                ..old
            }) == *status
        {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(status)
            .map_err(|error| StoreError::Encode(STATUS_FILE, error.to_string()))?;
        self.write(STATUS_FILE, &bytes).map(|_| ())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let path = self.directory.join(name);
        Ok(keelson_files::write_changed(
            &path,
            bytes,
            0o600,
            Durability::Flushed,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first release wrote it. Never changed.
    const GOLDEN: &str = include_str!("../tests/golden/seed.1.json");

    #[test]
    fn seeds_of_other_releases_are_read_if_they_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(directory.path());
        let read = |text: &str| {
            std::fs::write(directory.path().join(SEED_FILE), text).unwrap();
            store.seed()
        };
        let seed = read(GOLDEN).unwrap().unwrap();
        assert_eq!((&*seed.source, &*seed.instance_id), ("nocloud", "i-1"));
        assert_eq!(seed.public_keys, ["ssh-ed25519 AAAA a@b"]);
        let newer = GOLDEN.replace("\"version\": 1", "\"version\": 2, \"more\": 0");
        assert_eq!(read(&newer).unwrap().unwrap().instance_id, "i-1");
        let error = read(&newer.replace("_from\": 1", "_from\": 2")).unwrap_err();
        assert!(error.to_string().contains("newer release"), "{error}");
        store.keep(&seed).unwrap();
        assert!(store.seed().unwrap().unwrap() == seed);
    }
}
