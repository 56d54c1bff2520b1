//! The host configuration of a machine, read from its layers.
//!
//! Layers, lowest first: built-in defaults, the image (`/usr/lib/keelson/host.toml`, then
//! `/usr/share/keelson/services/*.toml`), the kernel command line (`keelson.config.KEY=VALUE`), the platform (what provisioning wrote, QEMU fw_cfg), and
//! the operator (`/etc/keelson/host.toml`, then `/etc/keelson/host.toml.d/*.toml` in the order of
//! their names). Tables are merged member by member; any other value, lists included, is replaced
//! whole.
//!
//! Reading never fails. A wrong file is left out completely and reported as a [`Problem`], so that
//! a typing error can't prevent a machine from booting to its API. When one of the operator's files
//! is wrong, the copy that [`save_last_good`] kept takes the place of *all* the operator's files:
//! a part of the operator's files may mean something else than all of them. If no such copy exists
//! yet, the correct files of the operator are used. The copy also stands in when the machine did not
//! become healthy with the operator's files several times.
//!
//! The program `keelson-configure` merges once at each boot and publishes the result; the other programs
//! read that ([`current`]). Parsing ([`parse`], [`Merged`]) is pure. In the order of reading:
//!
//! - [`Sources`]: the paths.
//! - [`load()`]: all layers from files, into a [`LoadedConfig`].
//! - [`parse`], `command_line`: one layer, with its problems ([`Problem`]). `path`: names of fields.
//! - `validate`, `not_built`: checks of values that have the right type.
//! - [`schema`]: every field in words: remedies, effect of a change, the generated page.
//! - [`merge()`], [`Merged`]: one layer over another, and where each value came from ([`ValueOrigin`]).
//! - `effective`: the published result.
//! - `trial`: the last good configuration and the count of starts that were not healthy.
//! - [`change`], `history`: changes while the machine runs, and their errors ([`ChangeError`]).
//! - [`switch_service`]: one such change, of a single value.

pub mod change;
mod command_line;
mod effective;
mod error;
mod history;
mod layer;
mod load;
mod loaded;
mod merge;
mod not_built;
mod origin;
mod path;
mod problem;
pub mod schema;
mod sources;
mod switch;
mod trial;
mod validate;

pub use effective::{current, publish, refresh};
pub use error::{ChangeError, SaveError};
pub use keelson_model::ip::{IpPrefix, PrefixError};
pub use layer::{Layer, MAX_LAYER_BYTES, parse};
pub use load::load;
pub use loaded::{HIDDEN, LoadedConfig, masked};
pub use merge::{Merged, merge};
pub use origin::{LayerKind, Origins, ValueOrigin};
pub use problem::Problem;
pub use sources::Sources;
pub use switch::switch_service;
pub use trial::{MOST_UNHEALTHY_STARTS, count_start, save_last_good};
pub use validate::{check_domain_name, check_host_name, check_link_name, parse_mode, sysctl_path};
