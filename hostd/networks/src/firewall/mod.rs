//! The packet filter: decides which containers may reach each other and the outside, and who may
//! reach them.
//!
//! It is one table, `inet keelson`. Its chains and rules are created once; networks and published
//! ports are elements of its sets and maps (docs/decisions/0034-one-table-of-maps.md).
//!
//! - `part`: the sets and maps, and [`Elements`] of them.
//! - `table`: the chains and rules.
//! - `transit`: what becomes of packets that are no container's.
//! - `plan`: what elements a network and an endpoint have.
//! - `filter`: [`Firewall`], which changes the kernel's table.
//! - `flows`: forgets connections that started under other rules.
//! - `watch`: restores the table when somebody else changes it.
//! - `foreign`: what other tables do to containers' packets.

mod filter;
mod flows;
mod foreign;
mod part;
mod plan;
mod table;
mod transit;
mod watch;

#[cfg(test)]
mod tests;

pub(crate) use filter::Firewall;
pub use filter::FirewallError;
pub(crate) use part::Elements;
pub(crate) use plan::{elements_of_endpoint, elements_of_network};
pub(crate) use transit::Transit;
