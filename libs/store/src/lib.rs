//! Versioned documents on disk, written so that a crash leaves the old or the new one.
//!
//! * [`document`]: one JSON file with a `version` member, read with a version check and migrated
//!   forward when it is older.
//! * [`file`]: the atomic replacement of a file that documents are built on.
//! * [`lock`]: one process per folder.
//! * [`objects`]: a folder per object, made visible by its document and removed by one rename.

pub mod document;
mod error;
pub mod file;
pub mod lock;
pub mod objects;

pub use document::Document;
pub use error::StoreError;
pub use file::Durability;
pub use lock::FileLock;
pub use objects::Objects;
