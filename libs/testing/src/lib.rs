//! What the tests of all crates share. Only tests, the test harness and the programs that compare
//! runtimes use it; nothing on the machine does (`image-build/tests/architecture.rs`).
//!
//! - [`skip()`], [`is_root`]: the one way to skip a test that this machine can't run.
//! - [`busybox`]: a static busybox for root file systems of tests.
//! - [`elf`]: whether a file is a static executable.

pub mod busybox;
pub mod elf;
mod skip;

pub use skip::{is_root, skip};
