//! Virtual machines for tests: start QEMU, talk to it, and the scenarios.
//!
//! - [`harness`]: one machine: prepare, start, console, APIs, stop.
//! - [`lab`]: machines with disks and files as the scenarios need them.

pub mod harness;
pub mod lab;
