//! What the tests of all crates share. Only tests, the test harness and the programs that compare
//! runtimes use it; nothing on the machine does (`image-build/tests/architecture.rs`).

pub mod busybox;
pub mod elf;
mod skip;

pub use skip::{is_root, skip};
