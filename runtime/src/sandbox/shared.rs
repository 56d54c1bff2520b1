//! Mounts in a namespace that is not the container's own: the runtime's, when config.json lists no
//! mount namespace, or one that is given by path.
//!
//! For the namespace's other users nothing may change. So the container's root is attached to the
//! bundle's root directory and not to `/`, the process's root is changed and not the namespace's, and
//! the propagation of mounts that were there stays. Nothing goes away with the process either: what
//! was mounted is unmounted when the container is deleted, or at once when it can't be made.
//!
//! A changed root holds nobody who may call chroot(2) himself. Whoever asks for this wants the
//! namespace's mounts within reach.

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

/// What is unmounted with a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// Where the namespace is found; the runtime's own has no place.
    namespace: Option<PathBuf>,
    /// The namespace's number, since another may be found there later.
    inode: u64,
    /// Where the root is attached.
    place: PathBuf,
    /// The number of that mount, since something else may be there later.
    mount: u64,
}

impl Shared {
    /// Of a container's process whose root is entered; nothing when its namespace is its own.
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

    /// Takes the container's mounts away. That they, or the namespace, are gone is no error.
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

    /// In a copy of this process, whose own root and working directory would change.
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

/// Takes a root away again that was attached, with everything below it. For a process that ends.
pub(crate) fn undo(root: &OwnedFd) {
    // There is nobody to tell.
    if rustix::process::fchdir(root).is_ok() {
        let _ = rustix::mount::unmount(".", UnmountFlags::DETACH);
    }
}

fn inode(path: impl rustix::path::Arg) -> Result<u64, Errno> {
    rustix::fs::stat(path).map(|status| status.st_ino)
}

/// The number of the topmost mount at a place: one that is never given again, where the kernel
/// (6.8) has those.
fn mount_at(path: impl rustix::path::Arg) -> Result<u64, Errno> {
    const UNIQUE: u32 = 0x4000;
    let wanted = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(UNIQUE);
    rustix::fs::statx(CWD, path, AtFlags::empty(), wanted).map(|status| status.stx_mnt_id)
}
