//! Versioned JSON documents: `{"version": 2, …members of the type…}`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::file::{self, Prepared};
use crate::{Durability, StoreError};

/// Documents may hold secrets.
const MODE: u32 = 0o600;

/// A type that is kept as a JSON file. It must serialize as a JSON object without a member
/// `version`.
pub trait Document: Serialize + DeserializeOwned {
    /// The version that this code writes, and the newest that it reads.
    const VERSION: u32;

    /// Brings the members of an older document one version forward, from `from` to `from + 1`.
    ///
    /// # Errors
    /// What does not fit, in one sentence.
    fn migrate(from: u32, members: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let _ = members;
        Err(format!("version {from} is not known"))
    }
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct Header {
    version: Option<u32>,
}

/// Reads a document; `None` when the file does not exist.
///
/// # Errors
/// [`StoreError`], naming the file, when it cannot be read, is not such a document, or is too
/// new.
pub fn read<T: Document>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// Reads a document from bytes; `path` is only named in errors.
///
/// # Errors
/// As for [`read`].
pub fn parse<T: Document>(path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    let malformed = |source| StoreError::Malformed {
        path: path.to_owned(),
        source,
    };
    let header: Header = serde_json::from_slice(bytes).map_err(malformed)?;
    let Some(found) = header.version else {
        return Err(StoreError::Unversioned {
            path: path.to_owned(),
        });
    };
    if found > T::VERSION {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            supported: T::VERSION,
        });
    }
    let mut members: Map<String, Value> = serde_json::from_slice(bytes).map_err(malformed)?;
    members.remove("version");
    for from in found..T::VERSION {
        members = T::migrate(from, members).map_err(|reason| StoreError::Migration {
            path: path.to_owned(),
            from,
            reason,
        })?;
    }
    serde_json::from_value(Value::Object(members)).map_err(malformed)
}

/// Writes a document atomically, readable by its owner only.
///
/// # Errors
/// [`StoreError`]; the old file is then untouched.
pub fn write<T: Document>(
    path: &Path,
    document: &T,
    durability: Durability,
) -> Result<(), StoreError> {
    file::write(path, &bytes(path, document)?, MODE, durability)
}

/// Like [`write`] with [`Durability::Flushed`], without the renaming.
///
/// # Errors
/// As for [`write`].
pub fn prepare<T: Document>(path: &Path, document: &T) -> Result<Prepared, StoreError> {
    file::prepare(path, &bytes(path, document)?, MODE)
}

/// The bytes that [`write`] puts into a file; `path` is only named in errors.
///
/// # Errors
/// [`StoreError::Malformed`] when the document cannot be JSON.
pub fn bytes<T: Document>(path: &Path, document: &T) -> Result<Vec<u8>, StoreError> {
    let written = Written {
        version: T::VERSION,
        body: document,
    };
    let mut bytes = serde_json::to_vec(&written).map_err(|source| StoreError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        name: String,
        size: u64,
    }

    /// Version 1 had no size, version 2 called the name `title`.
    impl Document for Thing {
        const VERSION: u32 = 3;

        fn migrate(
            from: u32,
            mut members: Map<String, Value>,
        ) -> Result<Map<String, Value>, String> {
            match from {
                1 => {
                    members.insert("size".to_owned(), Value::from(0));
                }
                2 => {
                    let title = members.remove("title").ok_or("title is missing")?;
                    members.insert("name".to_owned(), title);
                }
                other => return Err(format!("version {other} is not known")),
            }
            Ok(members)
        }
    }

    fn parse_text(text: &str) -> Result<Thing, StoreError> {
        parse(Path::new("thing.json"), text.as_bytes())
    }

    #[test]
    fn older_versions_are_migrated_step_by_step() {
        let thing = parse_text(r#"{"version":1,"title":"a"}"#).unwrap();
        assert_eq!(thing.name, "a");
        assert_eq!(thing.size, 0);
        let error = parse_text(r#"{"version":2,"size":1}"#).unwrap_err();
        assert!(matches!(error, StoreError::Migration { from: 2, .. }));
        let error = parse_text(r#"{"version":0}"#).unwrap_err();
        assert!(matches!(error, StoreError::Migration { from: 0, .. }));
    }

    #[test]
    fn newer_unversioned_and_foreign_files_are_refused() {
        let error = parse_text(r#"{"version":4,"anything":true}"#).unwrap_err();
        assert!(matches!(
            error,
            StoreError::TooNew {
                found: 4,
                supported: 3,
                ..
            }
        ));
        assert!(matches!(
            parse_text(r#"{"name":"a","size":1}"#).unwrap_err(),
            StoreError::Unversioned { .. }
        ));
        for text in [
            "",
            "{",
            "[]",
            "null",
            r#"{"version":"3"}"#,
            "{\"version\":-1}",
        ] {
            assert!(parse_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let read: Option<Thing> = read(&folder.path().join("absent")).unwrap();
        assert_eq!(read, None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name: String, size: u64) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("thing.json");
            let thing = Thing { name, size };
            write(&path, &thing, Durability::Relaxed).unwrap();
            prop_assert_eq!(read::<Thing>(&path).unwrap(), Some(thing));
        }

        #[test]
        fn no_truncation_is_taken_for_a_document(name: String, cut in 0_usize..64) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("thing.json");
            write(&path, &Thing { name, size: 1 }, Durability::Relaxed).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let kept = bytes.get(..cut.min(bytes.len() - 2)).unwrap();
            prop_assert!(parse::<Thing>(&path, kept).is_err());
        }
    }
}
