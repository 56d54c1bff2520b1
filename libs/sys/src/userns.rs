//! User namespaces without a process: for id-mapped mounts, and for containers to enter.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use crate::clone::{CloneRequest, Cloned, clone3, exit_now, signal_process};
use crate::sandbox;

const CLONE_NEWUSER: u64 = 0x1000_0000;

/// Why no user namespace was created.
#[derive(Debug)]
pub enum MakeError {
    /// The kernel has refused to create one.
    Clone(Errno),
    /// The kernel has refused a map: `uid_map` or `gid_map`.
    Map(&'static str, std::io::Error),
    /// It can't be opened.
    Open(Errno),
}

impl std::fmt::Display for MakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clone(error) => write!(f, "make a user namespace: {error}"),
            Self::Map(file, error) => write!(f, "write {file} of a user namespace: {error}"),
            Self::Open(error) => write!(f, "open a user namespace: {error}"),
        }
    }
}

impl std::error::Error for MakeError {}

/// Creates a user namespace with these maps (user_namespaces(7): lines of `inside outside count`).
/// It exists only while the descriptor is open.
///
/// This needs a process, which has ended when this returns. So the maps are complete before any
/// process is in the namespace.
pub fn make(uid_map: &str, gid_map: &str) -> Result<OwnedFd, MakeError> {
    let request = CloneRequest {
        namespaces: CLONE_NEWUSER,
        ..CloneRequest::default()
    };
    let own = nix::unistd::getpid();
    // SAFETY: other threads may hold locks at this moment, and so the child asks for none: it makes
    // system calls only, on its copy of this stack.
    let cloned = unsafe { clone3(&request) }.map_err(MakeError::Clone)?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => loop {
            // The parent kills it. In the unlikely case that the parent was killed before, it must
            // end by itself.
            if sandbox::die_with_parent().is_err() || nix::unistd::getppid() != own {
                exit_now(1);
            }
            nix::unistd::pause();
        },
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let maps = [("uid_map", uid_map), ("gid_map", gid_map)];
    let written = maps.into_iter().try_for_each(|(file, map)| {
        std::fs::write(format!("/proc/{pid}/{file}"), map)
            .map_err(|error| MakeError::Map(file, error))
    });
    let opened = written.and_then(|()| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty())
            .map_err(|error| MakeError::Open(Errno::from_raw(error.raw_os_error())))
    });
    let _ = signal_process(pidfd.as_fd(), libc::SIGKILL);
    while waitpid(Pid::from_raw(pid), Some(WaitPidFlag::empty())) == Err(Errno::EINTR) {}
    opened
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn it_has_its_maps_and_nobody_is_in_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let map = "0 100000 65536\n";
        let made = make(map, map).unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", made.as_raw_fd())).unwrap();
        assert!(link.to_string_lossy().starts_with("user:["), "{link:?}");
        assert_ne!(link, std::fs::read_link("/proc/self/ns/user").unwrap());
        match make("nonsense", map) {
            Err(MakeError::Map("uid_map", _)) => {}
            other => panic!("{other:?}"),
        }
    }
}
