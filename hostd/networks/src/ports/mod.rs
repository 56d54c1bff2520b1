//! Ports of the host that are published.
//!
//! - `error`: why a port could not be had.
//! - `ask`: what to reserve for what was asked.
//! - `book`: which container has which port.
//! - `socket`: a port is reserved by a socket that is bound to it.
//! - `holder`: which program of the host has a port.
//! - `reserve`: [`Ports`].

mod ask;
mod book;
mod error;
mod holder;
mod reserve;
mod socket;

#[cfg(test)]
mod tests;

pub(crate) use ask::Facts;
pub(crate) use error::Lost;
pub use error::PortError;
pub(crate) use reserve::{Holder, Ports};
