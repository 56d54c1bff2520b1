//! Linux's names and text formats, each in one place.
//!
//! - [`mountinfo`]: the mounts that a process sees, from `/proc/<pid>/mountinfo`.
//! - [`net_dev`]: the traffic of network interfaces, from `/proc/<pid>/net/dev`.
//! - [`accounts`]: users and groups by name.
//! - [`capability`]: capabilities by name and as bit masks.
//! - [`signal`]: signals by name and number.
//! - [`notify`]: the sd_notify protocol between a supervisor and its processes.

pub mod accounts;
pub mod capability;
pub mod mountinfo;
pub mod net_dev;
pub mod notify;
pub mod signal;
