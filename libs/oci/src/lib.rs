//! Image references, digests, manifests and layer archives.
//!
//! Everything here takes bytes or values and returns values; the crates above handle files,
//! networks and mounts. In the order of a pull:
//!
//! - [`reference`]: names of images, as users write them.
//! - [`digest`]: SHA-256 digests.
//! - [`manifest`]: manifests and indexes, of OCI and of Docker.
//! - [`config`]: the configuration of an image.
//! - [`compression`]: gzip, zstd and others, recognised by their first bytes.
//! - [`archive`], with [`tar_header`] and [`tar_entry`]: tar archives in both directions.
//! - [`layer`]: an archive as a tree, and its EROFS index, which the kernel mounts.
//! - [`verity`]: fs-verity digests of files.

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
