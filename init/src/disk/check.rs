//! Checks the root file system before it is mounted, by e2fsck from the initrd.
//!
//! Mounting replays the journal, which is enough after a power failure. A file system that the
//! kernel has marked as having errors would decay further with every boot.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::ext4::Complaint;
use crate::cmdline::CommandLine;
use crate::console;

/// e2fsck in the initrd.
const CHECKER: &str = "/sbin/e2fsck";
/// The longest check. It is cancelled then, and the machine takes the emergency path: hours for a
/// huge disk are better than a boot that never ends.
const LIMIT: Duration = Duration::from_secs(2 * 3600);
/// How often the console is told that the check goes on.
const REPORT: Duration = Duration::from_secs(30);
/// Longest time between two looks at the clock.
const TURN: Duration = Duration::from_secs(1);
/// How long e2fsck may take to end after it was told to.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// `fsck.mode=` on the kernel command line, with systemd-fsck's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// When the file system asks for it.
    Auto,
    /// In any case, and everything.
    Force,
    /// Never.
    Skip,
}

/// What follows a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The file system can be mounted.
    Mount,
    /// It was repaired in a way that needs a restart.
    Reboot,
}

/// A check that ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// e2fsck can't repair it by itself.
    #[error(
        "file system on {device} {why}, and e2fsck could not repair it ({end}). Check it by hand \
         from keelson.emergency=console or another system; fsck.mode=skip mounts it as it is"
    )]
    Uncorrected {
        device: String,
        why: String,
        end: String,
    },
    /// e2fsck could not be run or watched.
    #[error("check of {device}: run {CHECKER}: {source}")]
    Run { device: String, source: io::Error },
}

fn mode(command_line: &CommandLine) -> Mode {
    match command_line.value("fsck.mode") {
        Some("force") => Mode::Force,
        Some("skip") => Mode::Skip,
        _ => Mode::Auto,
    }
}

/// Why a check is due, in words for the console, and e2fsck's options.
fn due(mode: Mode, complaint: Option<Complaint>) -> Option<(String, &'static [&'static str])> {
    match (mode, complaint) {
        (Mode::Skip, _) | (Mode::Auto, None) => None,
        (Mode::Force, _) => Some((
            "is checked as fsck.mode=force asks".to_owned(),
            &["-p", "-f"],
        )),
        // -p alone looks into a file system only if its superblock asks for it, as here.
        (Mode::Auto, Some(complaint)) => Some((complaint.to_string(), &["-p"])),
    }
}

/// What e2fsck's exit code means (e2fsck(8)): a sum of 1 (repaired), 2 (repaired, and the machine
/// must restart), 4 (not repaired), 8 and more (it failed itself).
fn judge(code: i32) -> Option<Verdict> {
    match code {
        0 | 1 => Some(Verdict::Mount),
        2 | 3 => Some(Verdict::Reboot),
        _ => None,
    }
}

/// Checks the ext4 on `device` (`vda2`) if it wants that, or the command line does.
pub(crate) fn check(
    command_line: &CommandLine,
    device: &str,
    complaint: Option<Complaint>,
) -> Result<Verdict, CheckError> {
    let Some((why, options)) = due(mode(command_line), complaint) else {
        return Ok(Verdict::Mount);
    };
    console::warning(&format!("file system on {device} {why}; checking it"));
    if !Path::new(CHECKER).exists() {
        console::warning(&format!(
            "no {CHECKER} in this initrd; mounting without a check"
        ));
        return Ok(Verdict::Mount);
    }
    let run_error = |source| CheckError::Run {
        device: device.to_owned(),
        source,
    };
    let started = Instant::now();
    let output = || {
        let mut console = std::fs::OpenOptions::new();
        console
            .write(true)
            .open("/dev/kmsg")
            .map_or_else(|_| Stdio::null(), Stdio::from)
    };
    let child = Command::new(CHECKER)
        .args(options)
        .arg(Path::new("/dev").join(device))
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .spawn()
        .map_err(run_error)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let status =
        wait(Pid::from_raw(pid), device, started).map_err(|error| run_error(error.into()))?;
    let verdict = match status {
        WaitStatus::Exited(_, code) => judge(code).ok_or_else(|| format!("exit code {code}")),
        WaitStatus::Signaled(_, signal, _) => Err(format!("killed by {signal}")),
        _ => Err("no end".to_owned()),
    };
    match verdict {
        Ok(verdict) => {
            let seconds = started.elapsed().as_secs_f64();
            console::say(&format!(
                "file system on {device} checked in {seconds:.1} s"
            ));
            Ok(verdict)
        }
        Err(end) => Err(CheckError::Uncorrected {
            device: device.to_owned(),
            why,
            end,
        }),
    }
}

/// Waits for the end, tells the console from time to time, and ends a check that takes too long.
fn wait(pid: Pid, device: &str, started: Instant) -> nix::Result<WaitStatus> {
    // Ready when the process has ended.
    let process = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(nix::Error::ESRCH)?;
    let process = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
        .map_err(|error| nix::Error::from_raw(error.raw_os_error()))?;
    let mut next = REPORT;
    let mut cancelled: Option<Instant> = None;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) => {}
            other => return other,
        }
        let spent = started.elapsed();
        if spent >= next {
            console::say(&format!("still checking {device} ({} s)", spent.as_secs()));
            next += REPORT;
        }
        match cancelled {
            None if spent >= LIMIT => {
                console::error(&format!(
                    "the check of {device} takes too long and is ended"
                ));
                let _ = kill(pid, Signal::SIGTERM);
                cancelled = Some(Instant::now());
            }
            Some(when) if when.elapsed() >= CANCEL_LIMIT => {
                let _ = kill(pid, Signal::SIGKILL);
                return Ok(WaitStatus::Signaled(pid, Signal::SIGKILL, false));
            }
            _ => {}
        }
        let mut end = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        poll(
            &mut end,
            PollTimeout::try_from(TURN).unwrap_or(PollTimeout::MAX),
        )
        .or_else(|error| match error {
            nix::Error::EINTR => Ok(0),
            other => Err(other),
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_and_the_superblock_decide() {
        let of = |text: &str| mode(&CommandLine::parse(text.as_bytes()));
        assert_eq!(due(of(""), None), None);
        let (why, options) = due(of(""), Some(Complaint::Errors)).unwrap();
        assert!(why.contains("errors"), "{why}");
        assert_eq!(options, ["-p"]);
        assert_eq!(due(of("fsck.mode=skip"), Some(Complaint::Errors)), None);
        assert_eq!(due(of("fsck.mode=force"), None).unwrap().1, ["-p", "-f"]);
        assert_eq!(due(of("fsck.mode=what"), None), None);
    }

    #[test]
    fn exit_codes_of_e2fsck() {
        assert_eq!(judge(0), Some(Verdict::Mount));
        assert_eq!(judge(1), Some(Verdict::Mount));
        assert_eq!(judge(2), Some(Verdict::Reboot));
        assert_eq!(judge(3), Some(Verdict::Reboot));
        for bad in [4, 5, 6, 8, 12, 16, 32, 128] {
            assert_eq!(judge(bad), None, "{bad}");
        }
    }
}
