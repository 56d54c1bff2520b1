//! The packet filter: which containers reach each other, the world, and the world them.
//!
//! All of it is one table, `inet keelson`. Its chains and rules are made once; networks and published
//! ports are elements of its sets and maps (docs/decisions/0034-one-table-of-maps.md).
//!
//! - `part`: the sets and maps, and [`Elements`] of them.
//! - `table`: the chains and rules.
//! - `plan`: what elements a network and an endpoint have.
//! - `filter`: [`Firewall`], which changes the kernel's table.
//! - `flows`: connections that were begun by other rules.
//! - `watch`: restores the table when somebody else changes it.
//! - `foreign`: what others' tables do to containers.

mod filter;
mod flows;
mod foreign;
mod part;
mod plan;
mod table;
mod watch;

#[cfg(test)]
mod tests;

pub use filter::FirewallError;
pub(crate) use filter::{Firewall, Transit};
pub(crate) use part::Elements;
pub(crate) use plan::{elements_of_endpoint, elements_of_network};
