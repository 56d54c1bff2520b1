//! The small init of containers that ask for one. It is the first process of the container's pid
//! namespace, and the container's command is its child.
//!
//! `docker-init [--] COMMAND [ARGUMENT…]`; the program is an init when it is called by that name.
//! It passes every signal on to the command, reaps all processes that end in the container, and
//! ends when the command ends, with its exit code. When it ends, the pid namespace ends.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use keelson_shim_protocol::INIT_NAME as NAME;
use keelson_shim_protocol::exit_code;
use keelson_sys::{clone, idle};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid};
use rustix::process::WaitOptions;

/// Milliseconds without a signal after which memory is returned to the kernel.
const QUIET: u8 = 200;

/// Exit code if there is no command or no process can be made. It is the same as for an error of
/// the command itself.
const FAULT: u8 = 1;

/// Whether the program was called as an init.
pub(crate) fn is_called(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(OsStr::new(NAME))
}

/// Runs the command, and returns its exit code when it has ended.
pub(crate) fn main(arguments: Vec<OsString>) -> u8 {
    let Some(command) = command(arguments) else {
        eprintln!("{NAME}: no command; usage: {NAME} [--] COMMAND [ARGUMENT…]");
        return FAULT;
    };
    match keep(&command) {
        Ok(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Err(error) => {
            eprintln!("{NAME}: {}", error.desc());
            FAULT
        }
    }
}

/// The command's arguments in the form for execve(2). `None`: there is no command.
fn command(mut arguments: Vec<OsString>) -> Option<Vec<CString>> {
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    // An argument of a process never contains a zero byte.
    let words = arguments
        .into_iter()
        .map(|word| CString::new(word.into_vec()));
    let words = words.collect::<Result<Vec<_>, _>>().ok()?;
    (!words.is_empty()).then_some(words)
}

fn keep(command: &[CString]) -> Result<i32, Errno> {
    // From now on all signals wait in the descriptor, also those that come before the command is
    // started.
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC)?;
    // An ignored signal would not arrive.
    clone::set_ignored(Signal::SIGPIPE, false)?;
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let child = match unsafe { clone::fork() }? {
        ForkResult::Child => execute(command),
        ForkResult::Parent { child } => child,
    };
    loop {
        wait(&signals);
        let Some(signal) = signals.read_signal()? else {
            continue;
        };
        match i32::try_from(signal.ssi_signo) {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = collect(child) {
                    return Ok(code);
                }
            }
            // The command may be ending right now.
            Ok(number) => drop(clone::signal_pid(child.as_raw(), number)),
            Err(_) => {}
        }
    }
}

/// Waits for a signal. When none has come for a while, most of the program's memory is returned to
/// the kernel, because there may be one such process for each container.
fn wait(signals: &SignalFd) {
    let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut ready, QUIET) == Ok(0) {
        idle::wait_readable(signals.as_fd(), -1);
    }
}

/// Reaps all processes that have ended. Returns the command's exit code if the command is one of
/// them.
fn collect(command: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == command.as_raw() {
            let killed = || status.terminating_signal().map(exit_code::killed_by);
            code = status.exit_status().or_else(killed).or(code);
        }
    }
    code
}

/// Becomes the command, in a process group of its own. The terminal's keys (such as Ctrl-C) signal
/// that group.
fn execute(command: &[CString]) -> ! {
    let own = Pid::from_raw(0);
    let _ = nix::unistd::setpgid(own, own);
    // If standard input is no terminal, there is nothing to do. A background process may do this as
    // long as signals are blocked.
    let _ = nix::unistd::tcsetpgrp(std::io::stdin().as_fd(), nix::unistd::getpid());
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let Some(name) = command.first() else {
        clone::exit_now(exit_code::NOT_FOUND);
    };
    let Err(error) = nix::unistd::execvp(name, command);
    let (code, reason) = match error {
        Errno::ENOENT | Errno::ENOTDIR => (exit_code::NOT_FOUND, "no such file or directory"),
        Errno::EACCES | Errno::EPERM => (exit_code::NOT_EXECUTABLE, "permission denied"),
        other => (exit_code::NOT_EXECUTABLE, other.desc()),
    };
    eprintln!(
        "{NAME}: exec {}: {reason}",
        OsStr::from_bytes(name.to_bytes()).display()
    );
    clone::exit_now(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_makes_it_an_init() {
        for (name, is_init) in [
            ("/sbin/docker-init", true),
            ("docker-init", true),
            ("/usr/bin/keelson-runtime", false),
            ("/docker-init/runtime", false),
            ("", false),
        ] {
            assert_eq!(is_called(OsStr::new(name)), is_init, "{name}");
        }
    }

    #[test]
    fn two_dashes_end_the_options_of_the_init() {
        let words = |list: &[&str]| command(list.iter().map(OsString::from).collect());
        let plain = |list: &[&str]| {
            let words = list.iter().map(|word| CString::new(*word).unwrap());
            Some(words.collect::<Vec<_>>())
        };
        assert_eq!(words(&["--", "sh", "--"]), plain(&["sh", "--"]));
        assert_eq!(words(&["sh", "-c", "x"]), plain(&["sh", "-c", "x"]));
        assert_eq!(words(&["--"]), None);
        assert_eq!(words(&[]), None);
    }
}
