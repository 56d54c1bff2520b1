//! Device nodes.

use rustix::fs::FileType;

/// Whether a file is a certain device.
pub(super) fn is_device(
    status: &rustix::fs::Stat,
    kind: FileType,
    (major, minor): (u32, u32),
) -> bool {
    FileType::from_raw_mode(status.st_mode) == kind
        && (kind == FileType::Fifo || status.st_rdev == rustix::fs::makedev(major, minor))
}
