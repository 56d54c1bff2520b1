//! Host networking: links, addresses, routes, DHCPv4 and name servers, through netlink.
//!
//! - `daemon`: the loop: events in; plan, effects and status out.
//! - [`dhcp`]: a DHCPv4 client for each link, and the leases on disk.
//! - [`model`]: the state of the network, observed and desired.
//! - `matching`, [`desired`], [`plan`]: pure: which link an entry is about, the desired state, and the
//!   steps to it.
//! - `kernel`: the effects: reads the kernel's state and carries out steps.
//! - [`files`], [`status`], `notify`: resolv.conf, the status file, the supervisor.
//!
//! [`desired::desired`] turns the configuration, the existing links and the leases into the desired
//! state of the kernel. [`plan::plan`] turns the difference from its present state into steps; the
//! `kernel` module carries them out; each can be repeated. The `daemon` module does this whenever
//! the kernel, a DHCP client or the operator reports a change. Other programs read [`status`].

mod daemon;
pub mod desired;
pub mod dhcp;
pub mod files;
mod kernel;
mod matching;
pub mod model;
mod notify;
pub mod plan;
pub mod status;

pub use daemon::{DaemonError, Options, run};
pub use kernel::KernelError;
