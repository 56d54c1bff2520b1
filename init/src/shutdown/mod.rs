//! The shutdown of the machine, after netcfg and hostd have stopped (or did not stop in time).
//!
//! Every step has a time limit. A failure is printed, and the next step follows. The last resort is
//! a thread that ends the machine if everything hangs, and that feeds the watchdog until then.

mod guard;
mod mounts;
mod unmount;

use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use keelson_model::init::PowerAction;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::system::RebootCommand;

use self::guard::Guard;
use crate::supervise::watchdog::Watchdog;
use crate::{boot, console, emergency};

/// Time for the remaining processes to end after SIGTERM.
const TERMINATE_LIMIT: Duration = Duration::from_secs(5);
/// Time for the remaining processes to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Time for all steps. A disk that does not answer must not prevent the shutdown.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);

/// Ends the machine.
pub(crate) fn finish(action: PowerAction, watchdog: Option<Watchdog>) -> ! {
    let command = match action {
        PowerAction::Poweroff => RebootCommand::PowerOff,
        PowerAction::Reboot => RebootCommand::Restart,
        PowerAction::Halt => RebootCommand::Halt,
    };
    let guard = Guard::start(watchdog, WHOLE_LIMIT, move || {
        console::error("the orderly stop hangs; ending the machine without it");
        // Without a sync, because that may be what hangs.
        let _ = rustix::system::reboot(command);
    });
    if let Some(problem) = boot::seed::save(Path::new(boot::seed::FILE)) {
        console::warning(&format!("random-seed: {problem}"));
    }
    stop_processes(&guard);
    rustix::fs::sync();
    if unmount::unmount_all() {
        console::say("all file systems unmounted");
    }
    rustix::fs::sync();
    if action == PowerAction::Halt
        && let Some(watchdog) = guard.release()
    {
        watchdog.disarm();
    }
    console::say(&format!("end at {:.3} s", console::uptime()));
    emergency::now(command)
}

/// Asks every process to end, then kills those that are left. hostd has stopped the containers
/// before. The processes that still run are helpers, orphans, or everything if hostd did not stop
/// in time.
fn stop_processes(guard: &Guard) {
    let everybody = Pid::from_raw(-1);
    for (signal, limit) in [
        (Signal::SIGTERM, TERMINATE_LIMIT),
        (Signal::SIGKILL, KILL_LIMIT),
    ] {
        // ESRCH: no process is left.
        if kill(everybody, signal).is_err() || reap_until_none(limit, guard) {
            return;
        }
    }
    console::warning("some processes survive SIGKILL; going on without them");
}

/// Reaps children until there are none, which in PID 1 means no processes at all. Returns whether
/// that was reached in time.
fn reap_until_none(limit: Duration, guard: &Guard) -> bool {
    let deadline = Instant::now() + limit;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let child_ended = SignalFd::with_flags(&mask, flags).ok();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => continue,
            Err(nix::Error::ECHILD) => return true,
            Err(_) => {}
        }
        guard.feed();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        wait_for_child(child_ended.as_ref(), left.min(Duration::from_millis(500)));
    }
}

/// Waits until a child ends, at most this long. SIGCHLD has been blocked by the supervision.
fn wait_for_child(child_ended: Option<&SignalFd>, limit: Duration) {
    let Some(signals) = child_ended else {
        thread::sleep(limit.min(Duration::from_millis(50)));
        return;
    };
    let mut descriptors = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    if poll(&mut descriptors, timeout).is_ok_and(|ready| ready > 0) {
        // Only the wake-up matters; waitpid reports the rest.
        let _ = signals.read_signal();
    }
}
