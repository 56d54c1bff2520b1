//! The start of a program without the standard library's start-up code, whose signal stack and
//! handlers cost a dozen system calls in each execution.

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::libc;

type Vector = *mut *const libc::c_char;

static ARGUMENTS: AtomicPtr<*const libc::c_char> = AtomicPtr::new(null_mut());

/// Prepares what the rest of a program relies on: the three standard descriptors are open (a file
/// that got one of their numbers would receive the program's messages), and writing to a closed
/// pipe is an error instead of a fatal signal.
///
/// # Safety
/// Must be called once, before anything else, with `argv` as the C library passes it to `main`.
pub unsafe fn start(argv: Vector) -> Result<(), Errno> {
    ARGUMENTS.store(argv, Ordering::Relaxed);
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the array has three elements.
    Errno::result(unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) })?;
    for entry in &standard {
        if entry.revents & libc::POLLNVAL != 0 {
            // The lowest number that is free: this one.
            // SAFETY: the path is a string.
            Errno::result(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        }
    }
    crate::clone::set_ignored(nix::sys::signal::Signal::SIGPIPE, true)
}

/// The name that the program was called by: its first argument. `None` before [`start`], or if the
/// caller passed none.
#[must_use]
pub fn name() -> Option<OsString> {
    let list = ARGUMENTS.load(Ordering::Relaxed).cast_const();
    if list.is_null() {
        return None;
    }
    // SAFETY: the list has at least the null pointer that ends it.
    let first = unsafe { *list };
    if first.is_null() {
        return None;
    }
    // SAFETY: strings of the list live as long as the program.
    let text = unsafe { CStr::from_ptr(first) };
    Some(OsStr::from_bytes(text.to_bytes()).to_owned())
}

/// The arguments without the program's name. Empty before [`start`].
#[must_use]
pub fn arguments() -> Vec<OsString> {
    let mut list = Vec::new();
    let mut next = ARGUMENTS.load(Ordering::Relaxed).cast_const();
    if next.is_null() {
        return list;
    }
    loop {
        // SAFETY: the list ends with a null pointer, and before it stand strings that live as
        // long as the program.
        let argument = unsafe { *next };
        if argument.is_null() {
            break;
        }
        // SAFETY: as above.
        let text = unsafe { CStr::from_ptr(argument) };
        list.push(OsStr::from_bytes(text.to_bytes()).to_owned());
        // SAFETY: this element was not the last one.
        next = unsafe { next.add(1) };
    }
    if !list.is_empty() {
        list.remove(0);
    }
    list
}

/// Whether the program was executed by root, with all of the process's user and group numbers 0. It
/// uses the kernel's report from the start of the program, so it needs no system call, and is out
/// of date once the numbers change.
#[must_use]
pub fn executed_as_root() -> bool {
    let numbers = [libc::AT_UID, libc::AT_EUID, libc::AT_GID, libc::AT_EGID];
    numbers.into_iter().all(|number| {
        // Zero is also returned for a number that the kernel did not pass, and only then is the
        // error set. It always passes these.
        Errno::clear();
        // SAFETY: plain numbers.
        let value = unsafe { libc::getauxval(number) };
        value == 0 && Errno::last_raw() == 0
    })
}

/// Executes a file by descriptor with the present arguments and environment. Returns only if that
/// fails.
pub fn execute_again(file: BorrowedFd<'_>) -> Errno {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let arguments = ARGUMENTS.load(Ordering::Relaxed);
    if arguments.is_null() {
        return Errno::EINVAL;
    }
    // SAFETY: both lists end with a null pointer; the path is an empty string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments,
            environ,
            libc::AT_EMPTY_PATH,
        );
    }
    Errno::last()
}
