//! Swap areas (swapon(2)).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `SWAP_FLAG_PREFER` of linux/swap.h: the lower bits are the priority.
const SWAP_FLAG_PREFER: libc::c_int = 0x8000;
/// `SWAP_FLAG_PRIO_MASK` of linux/swap.h.
const SWAP_FLAG_PRIO_MASK: libc::c_int = 0x7fff;

/// Starts to use the swap area in a file or device. Of several areas the kernel fills that with the
/// highest priority first.
pub fn on(path: &Path, priority: u16) -> Result<(), nix::Error> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| nix::Error::EINVAL)?;
    let flags = SWAP_FLAG_PREFER | libc::c_int::from(priority) & SWAP_FLAG_PRIO_MASK;
    // SAFETY: the path is a string with a final zero that lives until the call returns.
    let result = unsafe { libc::swapon(path.as_ptr(), flags) };
    nix::Error::result(result).map(drop)
}

/// Stops to use a swap area; the kernel reads back what is in it.
pub fn off(path: &Path) -> Result<(), nix::Error> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| nix::Error::EINVAL)?;
    // SAFETY: as above.
    let result = unsafe { libc::swapoff(path.as_ptr()) };
    nix::Error::result(result).map(drop)
}
