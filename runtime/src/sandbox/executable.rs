//! Keeping containers from writing to this program's file (CVE-2019-5736).
//!
//! Until it executes the container's command, the container's first process runs this program,
//! and `/proc/PID/exe` leads to its file on the host, with the host's mount's permissions. So the
//! program must be running from a mount that can't be written through. On an image where /usr is
//! read-only that is so by itself. Elsewhere the program executes itself once more from a
//! read-only copy of the mount that is attached nowhere: nobody can reach it to change its
//! attributes, and unlike a copy of the file it costs neither memory nor time.

use std::os::fd::AsFd;

use keelson_sys::mount_attr::{self, MountAttributes};
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

use crate::failure::{Failure, Step};

const OWN: &str = "/proc/self/exe";

/// Returns when the program runs from a read-only mount; executes it again when it does not.
pub(crate) fn ensure_readonly() -> Result<(), Failure> {
    let status = rustix::fs::statvfs(OWN).step(|| "examine /proc/self/exe")?;
    if status.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let tree = rustix::mount::open_tree(
        CWD,
        OWN,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .step(|| "protect the runtime's own file: copy its mount")?;
    let attributes = MountAttributes {
        set: mount_attr::RDONLY,
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", false, &attributes)
        .step(|| "protect the runtime's own file: make the mount read-only")?;
    Err(keelson_sys::entry::execute_again(tree.as_fd()))
        .step(|| "execute the runtime from a read-only mount")
}
