//! Versioned documents on disk, written so that a crash leaves the old or the new one.
//!
//! * [`document`]: one JSON file that says its version and the oldest one whose readers understand
//!   it, migrated forward when it is older, and written backward while an update is on trial.
//! * [`file`]: the atomic replacement of a file that documents are built on.
//! * [`lock`]: one process per directory.
//! * [`objects`]: a directory per object, made visible by its document and removed by one rename.
//! * [`StoreError`]: why a document could not be read or written.

pub mod document;
mod error;
pub mod file;
pub mod lock;
pub mod objects;

pub use document::{Document, Era, Rest};
pub use error::StoreError;
pub use file::Durability;
pub use lock::FileLock;
pub use objects::Objects;
