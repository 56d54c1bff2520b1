//! Whether hardware virtualisation works, asked of the kernel itself.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `KVM_CREATE_VM` of linux/kvm.h: `_IO(0xAE, 0x01)`.
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;

/// Whether a virtual machine can really be made through `/dev/kvm`.
///
/// The device node alone is no proof: it also exists in containers and guests whose processor or
/// hypervisor refuses virtualisation. Making a virtual machine is no proof either: KVM variants
/// without hardware support (seen: guests of a page-table based hypervisor) can make one, but fail
/// at instructions that firmware uses. Their processors have neither `vmx` nor `svm`.
#[must_use]
pub fn usable() -> bool {
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_virtualisation(&processors) {
        return false;
    }
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

/// Whether the processors that `/proc/cpuinfo` describes have Intel's or AMD's virtualisation.
fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_ascii_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::has_virtualisation;

    #[test]
    fn looks_for_whole_flags_in_the_flags_line() {
        assert!(has_virtualisation(
            "processor\t: 0\nflags\t\t: fpu vmx sse\n"
        ));
        assert!(has_virtualisation("flags : svm"));
        assert!(!has_virtualisation(
            "model name : vmx\nflags : fpu vmx_x svml\n"
        ));
        assert!(!has_virtualisation(""));
    }
}
