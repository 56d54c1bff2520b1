//! The mounts to unmount before the power is switched off.

use std::path::Path;

use keelson_linux::mountinfo::Mount;

/// File systems that store nothing on a disk. Unmounting them is useless, and PID 1 needs some of
/// them to the end (for its console and its sockets).
const VOLATILE: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// The mounts to unmount, in this order: the last mounted first. The root is not among them, because
/// PID 1 runs from it.
pub(crate) fn to_unmount(mounts: &[Mount]) -> Vec<Mount> {
    mounts
        .iter()
        .rev()
        .filter(|mount| mount.target != Path::new("/") && !VOLATILE.contains(&mount.kind.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use keelson_linux::mountinfo;

    use super::*;

    const INFO: &[u8] = b"\
30 1 254:2 /ostree/deploy/keelson/deploy/ab.0 / ro,noatime - ext4 /dev/vda2 rw\n\
31 30 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw\n\
32 30 254:2 /ostree/deploy/keelson/var /var rw,noatime shared:1 master:2 - ext4 /dev/vda2 rw\n\
33 32 0:40 / /var/lib/a\\040b\\134c rw - overlay overlay rw\n\
34 30 0:22 / /run rw - tmpfs tmpfs rw\n\
35 34 0:41 / /run/keelson/hostd/layers/x ro - erofs /var/x rw\nodd line\n";

    #[test]
    fn the_last_mounted_is_unmounted_first() {
        let plan = to_unmount(&mountinfo::parse(INFO));
        let targets: Vec<_> = plan.iter().map(|m| m.target.to_str().unwrap()).collect();
        assert_eq!(
            targets,
            ["/run/keelson/hostd/layers/x", "/var/lib/a b\\c", "/var"]
        );
        assert_eq!(plan[1].kind, "overlay");
    }
}
