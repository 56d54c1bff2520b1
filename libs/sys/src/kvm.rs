//! Whether hardware virtualisation works, asked of the kernel itself.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `KVM_CREATE_VM` of linux/kvm.h: `_IO(0xAE, 0x01)`.
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;

/// Whether a virtual machine can really be made through `/dev/kvm`.
///
/// The device node alone says little: it exists in containers and guests whose processor or
/// hypervisor refuses virtualisation.
#[must_use]
pub fn usable() -> bool {
    let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/kvm") else {
        return false;
    };
    // SAFETY: the descriptor is open for the whole call, and KVM_CREATE_VM takes an integer
    // (machine type 0) and touches no memory of this process.
    let machine = unsafe { libc::ioctl(device.as_raw_fd(), KVM_CREATE_VM as _, 0) };
    if machine < 0 {
        return false;
    }
    // SAFETY: the call above returned this descriptor as a new one that nothing else owns.
    drop(unsafe { OwnedFd::from_raw_fd(machine) });
    true
}
