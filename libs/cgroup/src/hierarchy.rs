//! Where the hierarchy is mounted.

use std::path::{Path, PathBuf};

use keelson_linux::mountinfo;

/// Where the hierarchy is mounted when it is the machine's only one.
pub const USUAL_MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Where it is mounted beside hierarchies of version 1.
const HYBRID_MOUNT_POINT: &str = "/sys/fs/cgroup/unified";

/// `CGROUP2_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x6367_7270;

/// Where cgroup2 is mounted; `None` when it is not. Tries the usual places first, which takes two
/// system calls at most.
pub fn mount_point() -> Option<PathBuf> {
    for path in [USUAL_MOUNT_POINT, HYBRID_MOUNT_POINT] {
        if is_cgroup2(Path::new(path)) {
            return Some(PathBuf::from(path));
        }
    }
    let mounts = mountinfo::of_this_process().ok()?;
    let found = mounts.into_iter().find(|mount| mount.kind == "cgroup2");
    found.map(|mount| mount.target)
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|status| status.f_type as u64 == MAGIC)
}
