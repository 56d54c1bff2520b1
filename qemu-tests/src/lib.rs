//! Virtual machines for tests: start QEMU, talk to it, and the scenarios.
//!
//! - [`harness`]: one machine: prepare, start, console, APIs, stop.
//! - [`lab`]: machines with disks and files as the scenarios need them.
//! - [`probe`]: a container that looks at its machine.

pub mod harness;
pub mod lab;
pub mod probe;
