//! The kernel's packet filter: tables, chains, rules, sets and their elements, changed in one
//! transaction through nf_tables netlink; and the table of connections that NAT follows.
//!
//! No program is executed and no C library is linked: the messages are made and read here. Their
//! format is that of `linux/netfilter/nf_tables.h`, in netlink(7) attributes whose numbers are
//! big-endian. The terms are those of nft(8).
//!
//! In the order in which a caller meets them:
//!
//! - [`Netfilter`]: a socket in the network namespace of the thread that opens it.
//! - [`Table`], [`Chain`], [`Set`]: what there is to make.
//! - [`Rule`], made of comparisons of [`Field`]s and of look-ups in sets.
//! - [`Element`]: a member of a set or map, made of [`Value`]s.
//! - [`Batch`]: changes that become effective together or not at all.
//! - [`Monitor`]: reports that somebody else changed a table.
//! - [`Flow`]: a tracked connection.
//! - [`redirect`]: the whole of what a container's DNS needs.
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
pub use monitor::{Change, Monitor};
pub use object::{Chain, ChainKind, Data, Family, Hook, Policy, Set, Table};
pub use rule::{Field, Reject, Rule};
pub use socket::Netfilter;
pub use value::{Kind, Value, Verdict};
