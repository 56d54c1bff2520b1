//! What networks and endpoints need in the kernel, as values: nothing here asks or changes
//! anything.
//!
//! - [`network`]: the link of a network on the host.
//! - [`endpoint`]: an endpoint's links, addresses and parameters.
//! - [`routes`]: default routes of containers.

pub(super) mod endpoint;
pub(super) mod network;
pub(super) mod routes;
