//! Properties of child processes that [`std::process::Command`] can't express.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Makes the kernel kill the child with SIGKILL when the thread that started it ends, however it
/// ends. The caller therefore starts the child from a thread that lives as long as the child may.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec in the child; prctl(2) is a bare system
    // call that neither allocates nor takes locks.
    unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)) }
}
