//! Small system calls of container set-up that have no wrapper elsewhere.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Makes a new session keyring for the process (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING).
pub fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name is a valid string.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Switches on the loopback link of the present network namespace. Returns the socket that it used,
/// for callers that close ranges of descriptors.
pub fn loopback_up() -> Result<OwnedFd, Errno> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    #[repr(C)]
    struct InterfaceFlags {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    let mut request = InterfaceFlags {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the structure is at least as large as the kernel's `struct ifreq` (40 bytes).
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    Errno::result(result).map(|_| socket)
}

/// setresuid(2) for this thread alone, which is the only one: the C library's function would
/// synchronise all threads.
pub fn set_user(uid: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// setresgid(2), as [`set_user`].
pub fn set_group(gid: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setgroups(2), as [`set_user`].
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the pointer and the length are those of the slice.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Effective, permitted and inheritable capabilities as bit sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Bit n is capability number n.
    pub effective: u64,
    /// Bit n is capability number n.
    pub permitted: u64,
    /// Bit n is capability number n.
    pub inheritable: u64,
}

/// capset(2) for the calling thread.
pub fn set_capabilities(sets: &CapabilitySets) -> Result<(), Errno> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads exactly two data elements.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Removes a capability from the bounding set.
pub fn drop_bounding(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0)
}

/// Raises a capability in the ambient set.
pub fn raise_ambient(capability: u32) -> Result<(), Errno> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
        capability.into(),
    )
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<(), Errno> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
        0,
    )
}

/// Keeps the permitted capabilities over the next change of user, until execve.
pub fn keep_capabilities() -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

/// From now on, no executed program can gain privileges.
pub fn set_no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Hides the process's memory, descriptors and executable from others without CAP_SYS_PTRACE.
pub fn set_undumpable() -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0)
}

/// Makes the process the new parent of its descendants that lose theirs.
pub fn set_subreaper() -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)
}

/// Makes the kernel kill the process with SIGKILL when its parent's thread ends. A change of the
/// user clears this.
pub fn die_with_parent() -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)
}

/// Sets the process's name, as `comm` shows it.
pub fn set_name(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name is a valid string.
    let result = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    Errno::result(result).map(drop)
}

fn prctl(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers, no pointers.
    let result = unsafe { libc::prctl(option, first, second, zero, zero) };
    Errno::result(result).map(drop)
}

/// prlimit(2) for the calling process. Values are those of the kernel: `u64::MAX` means no limit.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let new = [soft, hard];
    // SAFETY: `struct rlimit64` is two u64.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            new.as_ptr(),
            std::ptr::null_mut::<u64>(),
        )
    };
    Errno::result(result).map(drop)
}

/// The calling process's soft and hard limit, as [`set_limit`].
pub fn limit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut old = [0_u64; 2];
    // SAFETY: `struct rlimit64` is two u64.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<u64>(),
            old.as_mut_ptr(),
        )
    };
    Errno::result(result).map(|_| (old[0], old[1]))
}

/// personality(2).
pub fn set_personality(domain: u64) -> Result<(), Errno> {
    // SAFETY: a plain number.
    Errno::result(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(drop)
}

/// Makes a terminal the controlling one of the session that the process leads.
pub fn set_controlling_terminal(terminal: impl AsFd) -> Result<(), Errno> {
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCSCTTY takes a number.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// Sets a terminal's size in characters.
pub fn set_terminal_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: the structure is the one that TIOCSWINSZ reads.
    Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ as _, &raw const size) }).map(drop)
}

/// Makes a descriptor the process's standard input (0), output (1) or error (2).
pub fn set_standard(fd: impl AsFd, number: i32) -> Result<(), Errno> {
    // SAFETY: the three standard descriptors are owned by nobody.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}
