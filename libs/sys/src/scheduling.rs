//! How a process shares processors and disks with others: sched_setattr(2), ioprio_set(2).

use nix::errno::Errno;
use nix::libc;

/// The kernel's `struct sched_attr` in its first version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SchedulingAttributes {
    /// Filled in by [`set_scheduling`].
    pub size: u32,
    /// `SCHED_…`.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// For the ordinary policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, in nanoseconds.
    pub period: u64,
}

/// Sets the calling process's policy.
pub fn set_scheduling(attributes: &SchedulingAttributes) -> Result<(), Errno> {
    let attributes = SchedulingAttributes {
        size: std::mem::size_of::<SchedulingAttributes>() as u32,
        ..*attributes
    };
    // SAFETY: the structure is as long as it says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_ref(&attributes),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Sets the calling process's priority for disks: a class (`IOPRIO_CLASS_…`) and a level in it.
pub fn set_io_priority(class: u32, level: u32) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    let value = class << CLASS_SHIFT | level;
    // SAFETY: plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    Errno::result(result).map(drop)
}
