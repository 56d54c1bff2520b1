//! Virtual machines for tests: start QEMU, talk to it, and the scenarios.

pub mod harness;
pub mod lab;
