//! The host configuration of a machine, read from its layers.
//!
//! Layers, lowest first: built-in defaults, the image (`/usr/lib/keelson/host.toml`), the
//! platform (QEMU fw_cfg), and the operator (`/etc/keelson/host.toml`, then
//! `/etc/keelson/host.toml.d/*.toml` in the order of their names). Tables are merged member by
//! member; any other value, lists included, is replaced whole.
//!
//! Reading never fails. A wrong file is left out completely and reported as a [`Problem`], so that
//! a typing error can't prevent a machine from booting to its API. When one of the operator's files
//! is wrong, the copy that [`save_last_good`] kept takes the place of *all* the operator's files:
//! a part of the operator's files may mean something else than all of them. If no such copy exists
//! yet, the correct files of the operator are used.
//!
//! Parsing ([`parse`], [`merge()`]) is pure; only [`load()`] and [`save_last_good`] touch files. In the
//! order of reading:
//!
//! - [`load()`]: all layers from files, and the last good copy of the operator's.
//! - [`parse`]: one file, with its problems ([`Problem`]).
//! - `validate`: checks of values that have the right type.
//! - `schema`: the valid values of each field, for the remedies.
//! - [`merge()`]: one layer over another.

mod layer;
mod load;
mod merge;
mod problem;
mod schema;
mod validate;

pub use keelson_model::ip::{IpPrefix, PrefixError};
pub use layer::{Layer, MAX_LAYER_BYTES, parse};
pub use load::{LoadedConfig, SaveError, Sources, load, save_last_good};
pub use merge::merge;
pub use problem::Problem;
pub use validate::{check_domain_name, check_host_name, check_link_name};
