//! What networks and endpoints need in the kernel, as plain values. Pure: nothing here queries or
//! changes the kernel.
//!
//! - [`network`]: the link of a network on the host.
//! - [`endpoint`]: an endpoint's links, addresses and parameters.
//! - [`routes`]: default routes of containers.

pub(super) mod endpoint;
pub(super) mod network;
pub(super) mod routes;
