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
use crate::supervise::ending::Ending;
use crate::supervise::watchdog::{LAST_TIMEOUT, Watchdog};
use crate::{boot, console, emergency, kexec, remote};

/// Time for the remaining processes to end after SIGTERM.
const TERMINATE_LIMIT: Duration = Duration::from_secs(5);
/// Time for the remaining processes to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Time for all steps. A disk that does not answer must not prevent the shutdown.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);

// A watchdog must not cut off a slow but honest disk, nor end before the guard.
const _: () = assert!(LAST_TIMEOUT.as_secs() >= 2 * WHOLE_LIMIT.as_secs());

/// Ends the machine. A forced end kills processes without asking them first.
pub(crate) fn finish(ending: Ending, mut watchdog: Option<Watchdog>) -> ! {
    let mut command = match ending.action {
        PowerAction::Poweroff => RebootCommand::PowerOff,
        // Another kernel is not loaded yet.
        PowerAction::Reboot | PowerAction::Kexec => RebootCommand::Restart,
        PowerAction::Halt => RebootCommand::Halt,
    };
    if let Some(watchdog) = &mut watchdog {
        // Also if the guard's thread can't be started or is starved, a slow disk has its time.
        watchdog.set_timeout(LAST_TIMEOUT);
    }
    let guard = Guard::start(watchdog, WHOLE_LIMIT, move || {
        console::error("the orderly stop hangs; ending the machine without it");
        // Without a sync, because that may be what hangs.
        let _ = rustix::system::reboot(command);
    });
    if let Some(problem) = boot::seed::save(Path::new(boot::seed::FILE)) {
        console::warning(&format!("random-seed: {problem}"));
    }
    if let Some(problem) = boot::clock::save() {
        console::warning(&problem);
    }
    if ending.action == PowerAction::Kexec {
        match kexec::load() {
            Ok(()) => command = RebootCommand::Kexec,
            Err(error) => console::warning(&format!("{error}; restarting through the firmware")),
        }
    }
    stop_processes(&guard, ending.forced);
    if let Some(problem) = boot::swap::release() {
        console::warning(&problem);
    }
    // Those of containers that died only now. Their servers may be out of reach.
    remote::unmount_all(|| guard.feed());
    if unmount::unmount_all() {
        console::say("all file systems unmounted");
    }
    if ending.action == PowerAction::Halt
        && let Some(watchdog) = guard.release()
    {
        watchdog.disarm();
    }
    console::say(&format!("end at {:.3} s", console::uptime()));
    // Every file system that could be written out is unmounted or read-only. A sync of the others
    // could hang.
    emergency::without_sync(command)
}

/// Asks every process to end, then kills those that are left. hostd has stopped the containers
/// before. The processes that still run are helpers, orphans, or everything if hostd did not stop
/// in time.
fn stop_processes(guard: &Guard, forced: bool) {
    let everybody = Pid::from_raw(-1);
    let steps = [
        (Signal::SIGTERM, TERMINATE_LIMIT),
        (Signal::SIGKILL, KILL_LIMIT),
    ];
    for (signal, limit) in steps.into_iter().skip(usize::from(forced)) {
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
