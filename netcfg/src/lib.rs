//! Host networking: links, addresses, routes, DHCPv4 and name servers, through netlink.
//!
//! [`desired::desired`] turns the configuration, the links that exist and the leases into what
//! the kernel should have; [`plan::plan`] turns the difference to what it has into steps; the
//! `kernel` module carries them out, each repeatable. The `daemon` module does so whenever the
//! kernel, a DHCP client or the operator reports a change. [`status`] is what others read.

mod daemon;
pub mod desired;
pub mod dhcp;
pub mod files;
mod kernel;
pub mod model;
mod notify;
pub mod plan;
pub mod status;

pub use daemon::{DaemonError, Options, run};
pub use kernel::KernelError;
