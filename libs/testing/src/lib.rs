//! What the tests of all crates share. Only tests, the test harness and the programs that compare
//! runtimes use it; nothing on the machine does (`image-build/tests/architecture.rs`).
//!
//! - [`skip()`], [`is_root`]: the one way to skip a test that this machine can't run.
//! - [`busybox`]: a static busybox for root file systems of tests.
//! - [`elf`]: whether a file is a static executable.
//! - [`program()`]: an executable of another package.
//! - [`CAPABILITIES`]: the capabilities of an ordinary container.

pub mod busybox;
pub mod elf;
mod programs;
mod skip;

pub use programs::program;
pub use skip::{is_root, skip};

/// Docker's default capabilities, by the names of `config.json`.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
