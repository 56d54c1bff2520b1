//! The kernel's packet filter: tables, chains, rules, sets and their elements, changed in one
//! transaction through nf_tables netlink; and the table of connections that NAT follows.
//!
//! This crate builds and parses the messages itself; it executes no program and links no C library.
//! The format is defined in `linux/netfilter/nf_tables.h`: netlink(7) attributes with big-endian
//! numbers. The terms are those of nft(8).
//!
//! In the order in which a caller needs them:
//!
//! - [`Netfilter`]: a socket in the network namespace of the thread that opens it.
//! - [`Table`], [`Chain`], [`BaseChain`], [`Set`]: the objects that can be created.
//! - [`Rule`], built from comparisons of [`Field`]s and look-ups in sets.
//! - [`Element`]: a member of a set or map, built from [`Value`]s.
//! - [`Batch`]: changes that take effect together or not at all.
//! - [`Monitor`]: reports that somebody else changed a table.
//! - [`Flow`]: a tracked connection.
//! - [`redirect`]: everything that a container's DNS needs.
//! - `wire`, `listing`: messages as bytes and back.
//! - [`NftError`]: why a call failed.

mod batch;
mod chains;
mod conntrack;
mod element;
mod error;
mod listing;
mod monitor;
mod object;
pub mod redirect;
mod rule;
mod socket;
mod value;
mod wire;

pub use batch::Batch;
pub use chains::BaseChain;
pub use conntrack::Flow;
pub use element::{Datum, Element};
pub use error::NftError;
pub use monitor::{Monitor, TableChange};
pub use object::{Chain, ChainKind, Data, Family, Hook, Policy, Set, Table};
pub use rule::{Field, Reject, Rule};
pub use socket::Netfilter;
pub use value::{Kind, Value, Verdict};
