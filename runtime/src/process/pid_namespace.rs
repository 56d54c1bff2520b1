//! Making children in another pid namespace.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Step};
use crate::sandbox::userns;

/// The way back from a pid namespace that was entered for children.
pub(super) struct PidNamespace(OwnedFd);

impl PidNamespace {
    /// Children are made in the namespace of a process, or in a namespace, from now on.
    pub(super) fn enter(namespace: impl AsFd) -> Result<Self, Failure> {
        // This names the namespace that the process itself is in, wherever its children go.
        let own = rustix::fs::open(
            "/proc/self/ns/pid",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step(|| "open /proc/self/ns/pid")?;
        setns(namespace, CloneFlags::CLONE_NEWPID).step(|| "join the pid namespace")?;
        Ok(Self(own))
    }

    /// `stays`: where the kernel lets only the machine's root back, it may be left at that, because
    /// this process makes no other children.
    pub(super) fn leave(self, stays: bool) -> Result<(), Failure> {
        match setns(self.0, CloneFlags::CLONE_NEWPID) {
            Err(Errno::EPERM) if stays && userns::is_restricted() => Ok(()),
            other => other.step(|| "leave the container's pid namespace"),
        }
    }
}
