//! Overlays without a writable layer. The kernel allows no writes to them, through any mount.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Makes a mount of at least two layers, the topmost first. The mount is not attached.
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
