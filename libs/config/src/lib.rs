//! The host configuration of a machine, read from its layers.
//!
//! Layers, lowest first: built-in defaults, the image (`/usr/lib/keelson/host.toml`), the
//! platform (QEMU fw_cfg), and the operator (`/etc/keelson/host.toml`, then
//! `/etc/keelson/host.toml.d/*.toml` in the order of their names). Tables are merged member by
//! member; any other value, lists included, is replaced whole.
//!
//! Reading never fails: a file that is wrong is left out as a whole and reported as a
//! [`Problem`], so that a typing error cannot keep a machine from booting to its API. When one
//! of the operator's files is wrong, the copy that [`save_last_good`] kept takes the place of
//! *all* the operator's files: half of an operator's intention is not what the operator meant.
//! Where no such copy exists yet, the operator's files that are right are used.
//!
//! Parsing ([`parse`], [`merge`]) is pure; only [`load`] and [`save_last_good`] touch files.

mod layer;
mod load;
mod merge;
mod problem;
mod schema;
mod validate;

pub use keelson_model::ip::{IpPrefix, PrefixError};
pub use layer::{Layer, MAX_LAYER_BYTES, parse};
pub use load::{Loaded, SaveError, Sources, load, save_last_good};
pub use merge::merge;
pub use problem::Problem;
pub use validate::{check_domain_name, check_host_name, check_link_name};
