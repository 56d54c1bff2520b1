//! Image references, digests, manifests and layer archives.
//!
//! Everything here takes bytes or values and gives values back; files, networks and mounts are
//! the business of the crates above.

pub mod archive;
pub mod compression;
pub mod config;
pub mod digest;
pub mod layer;
pub mod manifest;
pub mod reference;
pub mod tar_entry;
pub mod tar_header;
pub mod verity;
