//! Runs inside a machine, in a container that sees it, and stops a process as a debugger does:
//! `hold PID`. No signal stops PID 1.

use anyhow::{Context, Result};
use nix::sys::ptrace;
use nix::unistd::{Pid, pause};

fn main() -> Result<()> {
    let pid = std::env::args().nth(1).context("usage: hold PID")?;
    let pid = Pid::from_raw(pid.parse().context("PID")?);
    ptrace::seize(pid, ptrace::Options::empty()).context("seize")?;
    ptrace::interrupt(pid).context("interrupt")?;
    // The process goes on when this one ends.
    loop {
        pause();
    }
}
