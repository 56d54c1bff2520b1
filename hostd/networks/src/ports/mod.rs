//! Reserves the host's published ports.
//!
//! - `error`: why a port could not be reserved.
//! - `ask`: plans which ports to reserve for a request.
//! - `book`: records which container has which port.
//! - `socket`: reserves a port by a socket bound to it.
//! - `holder`: finds the program that has a port.
//! - `reserve`: puts these together: [`Ports`].

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
