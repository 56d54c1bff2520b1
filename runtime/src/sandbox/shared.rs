//! Mounts in a namespace that is not the container's own: the runtime's, when config.json lists no
//! mount namespace, or one that is given by path.
//!
//! Nothing may change for the namespace's other users. So the container's root is attached to the
//! bundle's root directory instead of `/`; the root of the process is changed, not that of the
//! namespace; and the propagation of existing mounts stays. The mounts do not disappear with the
//! process either: they are unmounted when the container is deleted, or at once if its creation
//! fails.
//!
//! A process that may call chroot(2) can leave a changed root. Callers who ask for this want to
//! reach the namespace's mounts.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use keelson_sys::clone::{self, CloneRequest, Cloned};
use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Step};
use crate::spec::{NamespaceKind, Spec};

/// Whether the container's mounts are made in such a namespace.
pub(crate) fn is_shared(spec: &Spec) -> bool {
    !spec.makes(NamespaceKind::Mount)
}

/// The mounts that are removed with a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// The path of the namespace. The runtime's own has none.
    namespace: Option<PathBuf>,
    /// The namespace's number, because another namespace may be at the path later.
    inode: u64,
    /// Where the root is attached.
    place: PathBuf,
    /// The number of that mount, because another mount may be there later.
    mount: u64,
}

impl Shared {
    /// Reads them from a container's process that has entered its root. `None` if the process has a
    /// mount namespace of its own.
    pub(crate) fn of(spec: &Spec, place: &Path, pid: i32) -> Result<Option<Self>, Failure> {
        if !is_shared(spec) {
            return Ok(None);
        }
        let step = || format!("examine the root of process {pid}");
        let namespace = spec.namespace(NamespaceKind::Mount);
        Ok(Some(Self {
            namespace: namespace.and_then(|namespace| namespace.path.clone()),
            inode: inode(format!("/proc/{pid}/ns/mnt")).step(step)?,
            place: place.to_owned(),
            mount: mount_at(format!("/proc/{pid}/root")).step(step)?,
        }))
    }

    /// Removes the container's mounts. It is no error if they, or the namespace, are gone.
    pub(crate) fn unmount(&self) -> Result<(), Failure> {
        let step = || format!("unmount the container's root at {}", self.place.display());
        let Some(path) = &self.namespace else {
            let own = inode("/proc/self/ns/mnt").step(step)?;
            return match own == self.inode {
                true => self.unmount_here().step(step),
                false => Err(Failure::conflict(format!(
                    "{}: it was made in another mount namespace",
                    step()
                ))),
            };
        };
        let Ok(namespace) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        else {
            return Ok(());
        };
        let found = rustix::fs::fstat(&namespace).map(|status| status.st_ino);
        match found == Ok(self.inode) {
            true => self.unmount_in(&namespace).step(step),
            false => Ok(()),
        }
    }

    /// Done in a copy of this process, because root and working directory change.
    fn unmount_in(&self, namespace: &OwnedFd) -> Result<(), Errno> {
        // SAFETY: this program never starts a thread.
        #[allow(unsafe_code)]
        let cloned = unsafe { clone::clone3(&CloneRequest::default()) };
        match cloned.map_err(|error| Errno::from_raw_os_error(error as i32))? {
            Cloned::Child => {
                let entered = nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)
                    .map_err(|error| Errno::from_raw_os_error(error as i32));
                let done = entered.and_then(|()| self.unmount_here());
                clone::exit_now(done.err().map_or(0, Errno::raw_os_error))
            }
            Cloned::Parent { pid, .. } => {
                let pid = nix::unistd::Pid::from_raw(pid);
                match nix::sys::wait::waitpid(pid, None) {
                    Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => Ok(()),
                    Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => {
                        Err(Errno::from_raw_os_error(code))
                    }
                    _ => Err(Errno::INTR),
                }
            }
        }
    }

    fn unmount_here(&self) -> Result<(), Errno> {
        match mount_at(&self.place) {
            Ok(mount) if mount == self.mount => {
                rustix::mount::unmount(&self.place, UnmountFlags::DETACH)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Removes an attached root again, with everything below it. For a process that ends.
pub(crate) fn undo(root: &OwnedFd) {
    // Nobody could receive an error.
    if rustix::process::fchdir(root).is_ok() {
        let _ = rustix::mount::unmount(".", UnmountFlags::DETACH);
    }
}

fn inode(path: impl rustix::path::Arg) -> Result<u64, Errno> {
    rustix::fs::stat(path).map(|status| status.st_ino)
}

/// The number of the topmost mount at a path. Kernels from 6.8 on have numbers that are never
/// reused.
fn mount_at(path: impl rustix::path::Arg) -> Result<u64, Errno> {
    const UNIQUE: u32 = 0x4000;
    let wanted = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(UNIQUE);
    rustix::fs::statx(CWD, path, AtFlags::empty(), wanted).map(|status| status.stx_mnt_id)
}
