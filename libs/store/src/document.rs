//! Versioned JSON documents: `{"version": 2, "readable_from": 1, …members of the type…}`.
//!
//! An update of the operating system may be rolled back. Then an *older* engine reads documents of
//! the newer one (docs/decisions/0019-formats-that-go-back.md). So every document states two
//! versions: its own, and the oldest one whose readers understand it. New members are therefore
//! optional for old readers, which keep them in a [`Rest`] and write them again.

mod golden;
mod parse;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use golden::{assert_first_release_reads, assert_goes_back};
pub use parse::parse;

use crate::file::{self, Prepared};
use crate::{Durability, StoreError};

/// Documents may hold secrets.
const MODE: u32 = 0o600;

/// The members of a JSON object.
pub type Members = Map<String, Value>;

/// The members of an object that this release does not know. With `#[serde(flatten)] rest: Rest` in
/// a type, members of a newer release survive when this release writes the object again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rest(Members);

impl Rest {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether the running release may still be rolled back. It decides the version in which documents
/// are written. The code that opens a store passes it; there is no global variable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Era {
    /// On trial after an update: documents are written in [`Document::WRITES`], the version that
    /// the release before it reads.
    Trial,
    /// Permanent: documents are written in [`Document::VERSION`]. The only era on machines without
    /// updates.
    #[default]
    Blessed,
}

/// A type that is kept as a JSON file. It must serialize as a JSON object without members `version`
/// and `readable_from`.
///
/// Rules for changing one:
/// * A member that old readers don't need: give it `#[serde(default)]`, and leave
///   [`Document::VERSION`] as it is or raise it with a [`Document::readable_from`] that stays.
/// * Anything else: raise the version, write [`Document::forward`] and [`Document::backward`], and
///   leave [`Document::WRITES`] at the version before, for one release at least.
/// * Add a golden file of each new version, for [`assert_goes_back`].
pub trait Document: Serialize + DeserializeOwned {
    /// The version that this code writes in [`Era::Blessed`].
    const VERSION: u32;

    /// The version that this code writes in [`Era::Trial`]: that of the previous release.
    const WRITES: u32 = Self::VERSION;

    /// The oldest version whose readers understand a document of `version`.
    fn readable_from(version: u32) -> u32 {
        version
    }

    /// The version for this particular document, in any era. It is for types whose documents rarely
    /// use members of a newer version: return the oldest version that can express the whole
    /// document. Older readers then refuse only the other documents, instead of ignoring members
    /// that they must not ignore.
    fn own_version(&self) -> Option<u32> {
        None
    }

    /// Brings the members of an older document one version forward, from `from` to `from + 1`.
    /// There may be members of newer versions, which an older release kept; these may no longer fit
    /// the others.
    ///
    /// # Errors
    /// The reason why the members can't be converted.
    fn forward(from: u32, members: Members) -> Result<Members, Misfit> {
        let _ = members;
        Err(Misfit(format!("version {from} is unknown")))
    }

    /// Brings the members one version backward, from `to + 1` to `to`.
    ///
    /// # Errors
    /// What does not fit.
    fn backward(to: u32, members: Members) -> Result<Members, Misfit> {
        let _ = members;
        Err(Misfit(format!("version {to} is unknown")))
    }
}

/// Why a document can't be brought to another version, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(pub String);

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    readable_from: u32,
    #[serde(flatten)]
    body: &'a T,
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

/// Writes a document atomically, readable by its owner only.
///
/// # Errors
/// [`StoreError`]; the old file is then untouched.
pub fn write<T: Document>(
    path: &Path,
    document: &T,
    era: Era,
    durability: Durability,
) -> Result<(), StoreError> {
    file::write(path, &bytes(path, document, era)?, MODE, durability)
}

/// Like [`write`] with [`Durability::Flushed`], but without the rename.
///
/// # Errors
/// As for [`write`].
pub fn prepare<T: Document>(path: &Path, document: &T, era: Era) -> Result<Prepared, StoreError> {
    file::prepare(path, &bytes(path, document, era)?, MODE)
}

/// The bytes that [`write`] puts into a file; `path` is only named in errors.
///
/// # Errors
/// [`StoreError::Malformed`] when the document cannot be JSON, [`StoreError::Migration`] when it
/// cannot be brought to the version of the era.
pub fn bytes<T: Document>(path: &Path, document: &T, era: Era) -> Result<Vec<u8>, StoreError> {
    bytes_of_version(path, document, version_of(document, era))
}

/// The version that a document is written in.
fn version_of<T: Document>(document: &T, era: Era) -> u32 {
    let of_era = match era {
        Era::Trial => T::WRITES,
        Era::Blessed => T::VERSION,
    };
    document.own_version().unwrap_or(of_era)
}

fn bytes_of_version<T: Document>(
    path: &Path,
    document: &T,
    version: u32,
) -> Result<Vec<u8>, StoreError> {
    let malformed = |source| StoreError::Malformed {
        path: path.to_owned(),
        source,
    };
    let mut bytes = if version == T::VERSION {
        serde_json::to_vec(&written(version, T::readable_from(version), document))
    } else {
        let body = serde_json::to_value(document).map_err(malformed)?;
        let Value::Object(mut members) = body else {
            return Err(StoreError::Migration {
                path: path.to_owned(),
                from: T::VERSION,
                reason: Misfit("it is not a JSON object".to_owned()),
            });
        };
        for to in (version..T::VERSION).rev() {
            members = T::backward(to, members).map_err(|reason| StoreError::Migration {
                path: path.to_owned(),
                from: to + 1,
                reason,
            })?;
        }
        serde_json::to_vec(&written(version, T::readable_from(version), &members))
    }
    .map_err(malformed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn written<B>(version: u32, readable_from: u32, body: &B) -> Written<'_, B> {
    Written {
        version,
        readable_from,
        body,
    }
}

#[cfg(test)]
mod tests;
