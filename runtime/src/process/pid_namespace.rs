//! Creates children in another pid namespace.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Step};
use crate::sandbox::userns;

/// The way back from a pid namespace that was entered to create children.
pub(super) struct PidNamespace(OwnedFd);

impl PidNamespace {
    /// From now on, children are made in the pid namespace of a process, or in a given one.
    pub(super) fn enter(namespace: impl AsFd) -> Result<Self, Failure> {
        // This file names the namespace of the process itself, wherever its children are made.
        let own = rustix::fs::open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step(|| "open /proc/self/ns/pid")?;
        setns(namespace, CloneFlags::CLONE_NEWPID).step(|| "join the pid namespace")?;
        Ok(Self(own))
    }

    /// `stays`: if the kernel lets only the machine's root return, it is no error to stay, because
    /// this process makes no other children.
    pub(super) fn leave(self, stays: bool) -> Result<(), Failure> {
        match setns(self.0, CloneFlags::CLONE_NEWPID) {
            Err(Errno::EPERM) if stays && userns::is_restricted() => Ok(()),
            other => other.step(|| "leave the container's pid namespace"),
        }
    }
}
