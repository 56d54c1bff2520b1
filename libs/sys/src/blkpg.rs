//! The partition ioctl of block devices.

use std::fs::File;
use std::os::fd::AsRawFd;

/// `BLKPG` of linux/blkpg.h: `_IO(0x12, 105)`.
const BLKPG: libc::c_ulong = 0x1269;
/// `BLKRRPART` of linux/fs.h: `_IO(0x12, 95)`.
const BLKRRPART: libc::c_ulong = 0x125F;
/// `BLKPG_RESIZE_PARTITION` of linux/blkpg.h.
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Argument {
    op: libc::c_int,
    flags: libc::c_int,
    data_length: libc::c_int,
    data: *mut Partition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// Informs the kernel that partition `number` of the opened `disk` now has another length, without
/// reading the partition table again; allowed while the partition is in use. `start` (which must
/// be the present one) and `length` are in bytes.
pub fn resize_partition(
    disk: &File,
    number: u32,
    start: u64,
    length: u64,
) -> Result<(), nix::Error> {
    let too_large = |_| nix::Error::EOVERFLOW;
    let mut partition = Partition {
        start: i64::try_from(start).map_err(too_large)?,
        length: i64::try_from(length).map_err(too_large)?,
        number: libc::c_int::try_from(number).map_err(too_large)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let mut argument = Argument {
        op: BLKPG_RESIZE_PARTITION,
        flags: 0,
        data_length: size_of::<Partition>() as libc::c_int,
        data: &raw mut partition,
    };
    // SAFETY: both structures have the kernel's layout and live until the call returns; the
    // descriptor is open for the whole call.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG as _, &raw mut argument) };
    nix::Error::result(result).map(drop)
}

/// Lets the kernel read the partition table of the opened `disk` again. EBUSY: one of its
/// partitions is in use.
pub fn reread_partitions(disk: &File) -> Result<(), nix::Error> {
    // SAFETY: the request has no argument; the descriptor is open for the whole call.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART as _) };
    nix::Error::result(result).map(drop)
}
