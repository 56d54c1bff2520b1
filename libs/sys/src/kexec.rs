//! Starting another kernel without the firmware (kexec_file_load(2)).

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Loads a kernel with its initial RAM file system and command line. reboot(2) starts it later.
pub fn load(kernel: &File, initrd: &File, command_line: &CStr) -> Result<(), nix::Error> {
    let command_line = command_line.to_bytes_with_nul();
    // SAFETY: both descriptors are open and the text with its final zero lives until the call
    // returns; the length counts the zero, as the kernel wants it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            command_line.len() as libc::c_ulong,
            command_line.as_ptr(),
            0 as libc::c_ulong,
        )
    };
    nix::Error::result(result).map(drop)
}
