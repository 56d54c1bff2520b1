//! mount_setattr(2), which neither nix nor rustix wraps.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

/// Attributes to set and to clear (`MOUNT_ATTR_…`), and the propagation to change to (`MS_SHARED`,
/// `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`; 0 keeps it).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttributes {
    /// The attributes to set.
    pub set: u64,
    /// The attributes to clear first.
    pub clear: u64,
    /// New propagation type.
    pub propagation: u64,
    /// User namespace of an id-mapped mount, with `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY`.
pub const RDONLY: u64 = 0x01;
/// `MOUNT_ATTR_NOSUID`.
pub const NOSUID: u64 = 0x02;
/// `MOUNT_ATTR_NODEV`.
pub const NODEV: u64 = 0x04;
/// `MOUNT_ATTR_NOEXEC`.
pub const NOEXEC: u64 = 0x08;
/// `MOUNT_ATTR__ATIME`: the bits that hold one of the access time modes.
pub const ATIME_MASK: u64 = 0x70;
/// `MOUNT_ATTR_RELATIME`.
pub const RELATIME: u64 = 0x00;
/// `MOUNT_ATTR_NOATIME`.
pub const NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`.
pub const STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`.
pub const NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`.
pub const IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`.
pub const NOSYMFOLLOW: u64 = 0x20_0000;

/// Whether a file is on a read-only mount.
pub fn is_readonly(path: &Path) -> Result<bool, rustix::io::Errno> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A read-only copy of a file's mount, which begins at that file. It is not attached anywhere, so
/// nobody can change its attributes, and it costs almost nothing.
pub fn readonly_copy(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, path, flags)
        .map_err(|error| Errno::from_raw(error.raw_os_error()))?;
    let attributes = MountAttributes {
        set: RDONLY,
        propagation: libc::MS_PRIVATE,
        ..MountAttributes::default()
    };
    mount_setattr(tree.as_fd(), c"", false, &attributes)?;
    Ok(tree)
}

/// Changes the mount that `mount` with `path` (may be empty) refers to, with all below it when
/// `recursive`.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: &MountAttributes,
) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: path and structure are valid for the call and of the sizes given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            std::mem::size_of::<MountAttributes>(),
        )
    };
    Errno::result(result).map(drop)
}
