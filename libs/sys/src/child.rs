//! Properties of child processes that [`std::process::Command`] can't express.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Makes the kernel kill the child with SIGKILL when the thread that started it ends, however it
/// ends. The caller therefore starts the child from a thread that lives as long as the child may.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs between fork and exec in the child; prctl(2) is a bare system
    // call that neither allocates nor takes locks.
    unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)) }
}

/// How a child ended, and the resources that it and its own reaped children used.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The child's process identifier.
    pub pid: i32,
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    /// Processor time outside the kernel.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Most memory that one of the processes held at a time, in bytes. The kernel counts what the
    /// caller's memory was when it made the child by vfork.
    pub peak_memory: u64,
}

/// Waits for the end of a child (wait4(2)). Nobody else may wait for it.
pub fn reap(pid: i32) -> Result<Ended, Errno> {
    let mut status = 0;
    // SAFETY: all members are numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let result = loop {
        // SAFETY: both pointers are to live variables of the types that the call fills in.
        match Errno::result(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
    };
    Ok(Ended {
        pid: result?,
        code: if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            128 + libc::WTERMSIG(status)
        },
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        peak_memory: usage.ru_maxrss as u64 * 1024,
    })
}
