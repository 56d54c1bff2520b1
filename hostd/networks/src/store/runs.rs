//! What running containers have in their networks: a file for each container, in memory until the
//! next boot. It is written before the first request to the kernel, and removed when everything is
//! released. An unreadable file is not changed, because a later hostd may be able to read it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use keelson_store::document::Rest;
use keelson_store::{Document, Durability, Era, StoreError, document, file};
use serde::{Deserialize, Serialize};

use super::state::RunningMember;
use crate::NetworkError;
use crate::types::{Binding, Endpoint, Recovered};

/// Largest file in bytes.
const LONGEST: u64 = 16 << 20;
/// The next engine that reads them may be an older one, at any time.
const ERA: Era = Era::Trial;
const ENDING: &str = ".json";

/// What a running container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunDocument {
    container: String,
    name: String,
    endpoints: Vec<Endpoint>,
    #[serde(default)]
    bindings: Vec<Binding>,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for RunDocument {
    const VERSION: u32 = 1;
}

impl RunDocument {
    fn recovered(self) -> Recovered {
        Recovered {
            container: self.container,
            name: self.name,
            endpoints: self.endpoints,
            bindings: self.bindings,
        }
    }
}

/// What was read of running containers.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) runs: Vec<Recovered>,
    /// Whether that is all: no file is left that can't be read.
    pub(super) complete: bool,
}

/// The directory of the files.
#[derive(Debug)]
pub(super) struct Runs(PathBuf);

impl Runs {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Reads what an earlier hostd has left.
    pub(super) fn read(&self) -> Found {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(path = %self.0.display(), %error, "networks of running containers not read");
                return Found::default();
            }
        };
        let mut found = Vec::new();
        let mut complete = true;
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    tracing::error!(path = %self.0.display(), %error, "networks of running containers not all read");
                    complete = false;
                    continue;
                }
            };
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(container) = name.and_then(|name| name.strip_suffix(ENDING)) else {
                // A killed hostd has left it; the old file is still complete.
                if path.file_name().is_some_and(file::is_temporary) {
                    let _ = fs::remove_file(&path);
                }
                continue;
            };
            match read(&path) {
                Ok(document) if document.container == container => {
                    found.push(document.recovered());
                }
                Ok(document) => {
                    tracing::error!(path = %path.display(), container = document.container, "networks of another container; left alone");
                    complete = false;
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "networks of a container can't be read; its addresses may be given away again");
                    complete = false;
                }
            }
        }
        found.sort_by(|a, b| a.container.cmp(&b.container));
        Found {
            runs: found,
            complete,
        }
    }

    /// Stores what a container has. If that is nothing, its file is removed.
    pub(super) fn write(
        &self,
        container: &str,
        member: &RunningMember,
    ) -> Result<(), NetworkError> {
        let path = self.path(container)?;
        if member.endpoints.is_empty() && member.bindings.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(NetworkError::io("remove", &path)(error))
                }
                _ => Ok(()),
            };
        }
        let found = RunDocument {
            container: container.to_owned(),
            name: member.name.clone(),
            endpoints: member.endpoints.clone(),
            bindings: member.bindings.clone(),
            rest: Rest::default(),
        };
        Ok(document::write(&path, &found, ERA, Durability::Relaxed)?)
    }

    fn path(&self, container: &str) -> Result<PathBuf, NetworkError> {
        let plain = !container.is_empty()
            && container
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        match plain {
            true => Ok(self.0.join(format!("{container}{ENDING}"))),
            false => Err(StoreError::Name {
                name: container.to_owned(),
            }
            .into()),
        }
    }
}

fn read(path: &Path) -> Result<RunDocument, NetworkError> {
    let found = fs::symlink_metadata(path).map_err(NetworkError::io("stat", path))?;
    if !found.is_file() || found.len() > LONGEST {
        return Err(NetworkError::io("read", path)(
            ErrorKind::InvalidData.into(),
        ));
    }
    let gone = || NetworkError::io("read", path)(ErrorKind::NotFound.into());
    document::read(path)?.ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each version, as it was written by the release that introduced it. Never changed.
    const GOLDEN: &[(u32, &str)] = &[(1, include_str!("../../tests/golden/run.1.json"))];

    #[test]
    fn documents_of_every_version_are_read() {
        document::assert_goes_back::<RunDocument>(GOLDEN);
    }

    #[test]
    fn files_of_others_are_kept() {
        let base = tempfile::tempdir().unwrap();
        let runs = Runs::new(base.path().to_owned());
        let golden =
            document::parse::<RunDocument>(Path::new("x"), GOLDEN[0].1.as_bytes()).unwrap();
        let member = RunningMember {
            name: golden.name.clone(),
            endpoints: golden.endpoints.clone(),
            bindings: golden.bindings.clone(),
            ..RunningMember::default()
        };
        runs.write("c1", &member).unwrap();
        fs::write(base.path().join("half.json"), "{").unwrap();
        fs::copy(base.path().join("c1.json"), base.path().join("c2.json")).unwrap();
        fs::write(base.path().join(".new-c1.json-1-1"), "{").unwrap();
        let found = runs.read();
        assert!(!found.complete);
        let found = found.runs;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].endpoints, golden.endpoints);
        assert_eq!(found[0].bindings, golden.bindings);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 3);
        runs.write("c1", &RunningMember::default()).unwrap();
        runs.write("c1", &RunningMember::default()).unwrap();
        assert_eq!(runs.read().runs, []);
        for left in ["half.json", "c2.json"] {
            fs::remove_file(base.path().join(left)).unwrap();
        }
        assert!(runs.read().complete);
        for bad in ["", "../x", "a.b"] {
            assert!(runs.write(bad, &member).is_err(), "{bad}");
        }
    }
}
