//! Makes processes for containers: clone3(2), close_range(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid};

/// Options of clone3(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneRequest<'a> {
    /// `CLONE_NEW…` flags.
    pub namespaces: u64,
    /// The cgroup (a directory of a cgroup2 mount) that the child is created in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Make the child a child of the caller's parent.
    pub sibling: bool,
}

/// The process in which [`clone3`] returned.
#[derive(Debug)]
pub enum Cloned {
    /// In the child.
    Child,
    /// In the parent.
    Parent {
        /// The child's process identifier.
        pid: i32,
        /// A pidfd of the child; close-on-exec.
        pidfd: OwnedFd,
    },
}

/// `struct clone_args`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

pub(crate) const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Copies the calling process, which must have a single thread, into new namespaces. The memory is
/// not shared, so the child may do whatever the parent could.
///
/// # Safety
/// The process must have no other thread: the child would inherit the locks that such a thread
/// holds.
pub unsafe fn clone3(request: &CloneRequest<'_>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: request.namespaces | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if request.sibling {
        args.flags |= CLONE_PARENT;
        args.exit_signal = 0;
    }
    // SAFETY: the structure is of the size that is passed, the pidfd pointer is valid for the
    // call; without CLONE_VM and without a stack the child continues on a copy of this stack.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            std::mem::size_of::<CloneArgs>(),
        )
    };
    match Errno::result(pid)? {
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent {
            pid: pid as i32,
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// fork(2) for single-threaded programs.
///
/// # Safety
/// The process has no other thread.
pub unsafe fn fork() -> Result<ForkResult, Errno> {
    // Without the C library's preparations, which are for its other threads.
    let (flags, none) = (libc::c_long::from(libc::SIGCHLD), 0 as libc::c_long);
    // SAFETY: the caller's promise; without CLONE_VM the child continues on a copy of this stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    Ok(match Errno::result(pid)? {
        0 => ForkResult::Child,
        pid => ForkResult::Parent {
            child: Pid::from_raw(pid as i32),
        },
    })
}

/// Marks all descriptors from `first` on as close-on-exec.
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: only sets flags of descriptors.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Closes all descriptors in a range, both ends included.
///
/// # Safety
/// Nothing in the process owns a descriptor in the range.
pub unsafe fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

/// Takes ownership of a descriptor that another program passed to this one by number, if it is
/// open.
///
/// # Safety
/// Nothing else in the process owns the descriptor.
pub unsafe fn adopt(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only asks for flags.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ends the process without running destructors or exit handlers: for a copy made by [`clone3`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Sets a signal's disposition to the default (`false`) or to be ignored (`true`).
pub fn set_ignored(signal: nix::sys::signal::Signal, ignored: bool) -> Result<(), Errno> {
    use nix::sys::signal::{SigHandler, signal as set};
    let handler = if ignored {
        SigHandler::SigIgn
    } else {
        SigHandler::SigDfl
    };
    // SAFETY: no handler function of ours is installed or removed.
    unsafe { set(signal, handler) }.map(drop)
}

/// Sends a signal, given by its number (real-time signals included), to a process.
pub fn signal_process(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: no signal information is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Sends a signal, given by its number, to a process by its identifier.
pub fn signal_pid(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// [`clone3`] for programs that may have several threads: it checks first, and fails with EAGAIN if
/// there are more. `child` runs in the child, which exits with its result.
pub fn run_in_child(
    request: &CloneRequest<'_>,
    child: impl FnOnce() -> i32,
) -> std::io::Result<(i32, OwnedFd)> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(Errno::EAGAIN.into());
    }
    // SAFETY: only threads of the process make threads, and this is the only one.
    match unsafe { clone3(request) }? {
        Cloned::Child => exit_now(child()),
        Cloned::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}
