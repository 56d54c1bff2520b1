//! The machine's logs: collected, stored, read and forwarded.
//!
//! What the kernel, PID 1 and the processes that it supervises write is in the kernel's log, hostd's
//! own lines included; the output of services is in the logs of their containers. Both sources have
//! positions, which are stored with each line, so that every line is stored once, however often hostd
//! ends in between. On a machine without Keelson's PID 1 hostd keeps its own lines itself.
//!
//! In the order in which a line passes through:
//!
//! - [`own`]: hostd's own lines, where nobody supervises it.
//! - `kernel`, `services`: the sources.
//! - `limit`: what a unit may write in a time.
//! - `store`: the one task that writes.
//! - `handle`: [`HostLogs`], which starts all of them; reading for clients.
//! - [`line`](mod@line): a line as the API shows it.
//! - `forward`: one task for each target.

mod forward;
mod handle;
mod kernel;
mod limit;
pub mod line;
pub mod own;
mod services;
mod store;

pub use handle::{BootChoice, HostLogs, LogsError, LogsOptions, LogsQuery};
