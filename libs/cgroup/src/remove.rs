//! Removing cgroups.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::Step;
use crate::{CgroupError, Event, wait};

/// Kills the processes of a cgroup and removes it with those below it. It is no error if there is
/// no such cgroup. Blocks until the kernel has cleaned up the processes: they leave their cgroup
/// only then.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when processes are left after `limit`.
pub fn remove(group: &Path, limit: Duration) -> Result<(), CgroupError> {
    remove_with(group, limit, || {
        // Kernels before 5.14 do not have the file. Then this only waits for processes that end by
        // themselves.
        let _ = fs::write(group.join("cgroup.kill"), "1");
    })
}

/// Like [`remove`], but waits for the processes to end by themselves.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when processes are left after `limit`.
pub fn remove_when_empty(group: &Path, limit: Duration) -> Result<(), CgroupError> {
    remove_with(group, limit, || {})
}

fn remove_with(group: &Path, limit: Duration, kill: impl Fn()) -> Result<(), CgroupError> {
    let step = || format!("remove cgroup {}", group.display());
    let deadline = Instant::now() + limit;
    loop {
        match remove_tree(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
            other => return other.step(step),
        }
        kill();
        match wait(group, Event::Empty, deadline) {
            // Another process may have entered since. Then the next round kills it.
            Ok(true) if Instant::now() < deadline => {}
            // Another process removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).step(step),
            Ok(_) => {
                let message = format!("processes are left after {} ms", limit.as_millis());
                return Err(io::Error::new(ErrorKind::TimedOut, message)).step(step);
            }
        }
    }
}

/// Removes a cgroup with those below it. The kernel refuses while a process is in one of them.
fn remove_tree(group: &Path) -> io::Result<()> {
    match fs::remove_dir(group) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {
            for entry in fs::read_dir(group)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path())?;
                }
            }
            fs::remove_dir(group)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
