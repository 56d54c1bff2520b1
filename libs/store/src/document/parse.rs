//! Reads documents of any version.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Document, Members};
use crate::StoreError;

#[derive(Deserialize)]
struct Header {
    version: Option<u32>,
    /// Documents of the first releases do not have it: only readers of the same version understand
    /// those.
    readable_from: Option<u32>,
}

/// Reads a document from bytes; `path` is only named in errors.
///
/// # Errors
/// As for [`super::read`].
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
    let readable_from = header.readable_from.unwrap_or(found);
    if readable_from > T::VERSION {
        return Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            readable_from,
            supported: T::VERSION,
        });
    }
    let mut members: Members = serde_json::from_slice(bytes).map_err(malformed)?;
    members.remove("version");
    members.remove("readable_from");
    for from in found..T::VERSION {
        members = T::forward(from, members).map_err(|reason| StoreError::Migration {
            path: path.to_owned(),
            from,
            reason,
        })?;
    }
    serde_json::from_value(Value::Object(members)).map_err(malformed)
}
