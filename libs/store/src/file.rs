//! The files that documents are made of; [`keelson_files`] with this crate's errors.

use std::path::Path;

pub use keelson_files::{Durability, is_temporary};

use crate::StoreError;

/// See [`keelson_files::write`].
///
/// # Errors
/// [`StoreError::Io`].
pub fn write(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> Result<(), StoreError> {
    Ok(keelson_files::write(path, bytes, mode, durability)?)
}

/// See [`keelson_files::prepare`].
///
/// # Errors
/// [`StoreError::Io`].
pub fn prepare(path: &Path, bytes: &[u8], mode: u32) -> Result<Prepared, StoreError> {
    Ok(Prepared(keelson_files::prepare(path, bytes, mode)?))
}

/// See [`keelson_files::Prepared`].
#[derive(Debug)]
pub struct Prepared(keelson_files::Prepared);

impl Prepared {
    /// See [`keelson_files::Prepared::place`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn place(self) -> Result<(), StoreError> {
        Ok(self.0.place()?)
    }
}

/// See [`keelson_files::flush`].
///
/// # Errors
/// [`StoreError::Io`], also when the file does not exist.
pub fn flush(path: &Path) -> Result<(), StoreError> {
    Ok(keelson_files::flush(path)?)
}

/// See [`keelson_files::flush_directory`].
///
/// # Errors
/// [`StoreError::Io`].
pub fn flush_directory(directory: &Path) -> Result<(), StoreError> {
    Ok(keelson_files::flush_directory(directory)?)
}

/// See [`keelson_files::remove`].
///
/// # Errors
/// [`StoreError::Io`].
pub fn remove(path: &Path) -> Result<(), StoreError> {
    Ok(keelson_files::remove(path)?)
}

/// See [`keelson_files::sweep`].
///
/// # Errors
/// [`StoreError::Io`] when the directory cannot be read or a file not be removed.
pub fn sweep(directory: &Path) -> Result<usize, StoreError> {
    Ok(keelson_files::sweep(directory)?)
}
