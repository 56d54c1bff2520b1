//! Layers that are put together without a writable one: the kernel lets nobody write to them, by
//! whatever mount they are seen.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Layers, the topmost first and at least two, as a mount that is attached nowhere.
pub(crate) fn read_only(lower: &[PathBuf]) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for directory in lower {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", directory)?;
    }
    rustix::mount::fsconfig_set_string(&context, "redirect_dir", "off")?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    rustix::mount::fsmount(&context, flags, attributes)
}
