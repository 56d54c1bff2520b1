//! Waiting for a cgroup.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A state of a cgroup that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// No process is in it or in a cgroup below it.
    Empty,
    /// All processes are frozen.
    Frozen,
    /// No process is frozen.
    Thawed,
}

impl Event {
    /// The line of `cgroup.events` that reports it.
    fn line(self) -> &'static str {
        match self {
            Self::Empty => "populated 0",
            Self::Frozen => "frozen 1",
            Self::Thawed => "frozen 0",
        }
    }
}

/// Waits until a cgroup is in a state; `false` when it is not at the deadline.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such cgroup (any more).
pub fn wait(group: &Path, event: Event, deadline: Instant) -> io::Result<bool> {
    let mut file = File::open(group.join("cgroup.events"))?;
    let mut text = String::new();
    loop {
        text.clear();
        file.rewind()?;
        match file.read_to_string(&mut text) {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                // Removed since it was opened.
                return Err(ErrorKind::NotFound.into());
            }
            other => other?,
        };
        if text.lines().any(|line| line == event.line()) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // The kernel reports a change of the file as an exceptional condition.
        let mut poll_fd = [PollFd::new(&file, PollFlags::PRI)];
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut poll_fd, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
