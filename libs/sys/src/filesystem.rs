//! Control over whole file systems.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `FS_IOC_SHUTDOWN` of linux/fs.h. Before, ext4 and XFS had their own names for it:
/// `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, and XFS's flag of the same meaning.
const WITHOUT_FLUSH: u32 = 2;

/// Makes a file system stop at once, as if the machine had lost its power: nothing that is not on
/// the disk yet gets there, the journal included, and every further access fails. It can only be
/// unmounted. Tests use this to see what a power cut leaves.
///
/// # Errors
/// `ENOTTY` when the file system does not know it.
pub fn cut_off(directory: BorrowedFd<'_>) -> Result<(), nix::Error> {
    let flags = WITHOUT_FLUSH;
    // SAFETY: the kernel reads one integer, which lives until the call returns; the descriptor is
    // open for the call's duration.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), SHUTDOWN as _, &raw const flags) };
    nix::Error::result(result).map(drop)
}
