//! What a platform tells a new machine, as a layer of its configuration.
//!
//! Translators take bytes and give settings with warnings; they read nothing:
//!
//! - [`user_data`]: tells formats apart. [`cloud_config`], [`ignition`]: two of them.
//! - [`network`]: network configuration. [`nocloud`], [`clouds`]: documents of the sources.
//! - [`compose`]: all documents of a [`seed`] into one layer that the schema takes (`fit`).
//! - [`yaml`], `fields`, `paths`, [`notes`], [`settings`], [`resources`], [`gzip`]: what they share.
//!
//! The rest has effects:
//!
//! - [`sources`]: where seeds come from. [`machine`], [`disk`], [`fetch`]: what they look at.
//! - [`phases`]: what happens before and after the network. [`store`]: what stays.

pub mod cloud_config;
pub mod clouds;
pub mod compose;
pub mod disk;
pub mod fetch;
mod fields;
mod fit;
pub mod gzip;
pub mod ignition;
pub mod machine;
pub mod network;
pub mod nocloud;
pub mod notes;
mod paths;
pub mod phases;
pub mod resources;
pub mod seed;
pub mod settings;
pub mod sources;
pub mod store;
pub mod user_data;
pub mod yaml;
