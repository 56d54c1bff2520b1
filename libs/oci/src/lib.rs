//! Image references, digests, manifests and layer archives.
//!
//! Everything here takes bytes or values and gives values back; files, networks and mounts are
//! the business of the crates above.

pub mod config;
pub mod digest;
