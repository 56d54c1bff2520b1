//! `/proc/self/mountinfo` (proc_pid_mountinfo(5)), and what of it has to go before power does.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where.
    pub(crate) target: PathBuf,
    /// Type of the file system.
    pub(crate) kind: String,
}

/// File systems that hold nothing which outlives the power: unmounting them is no use, and PID 1
/// needs some of them to the end (its console, its sockets).
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

/// Reads the file's content, in the order of mounting. Lines of another form are passed over.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let target = unescape(fields.nth(4)?);
            let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
            Some(Mount {
                target: PathBuf::from(OsString::from_vec(target)),
                kind: String::from_utf8_lossy(rest.next()?).into_owned(),
            })
        })
        .collect()
}

/// The mounts to be taken away, in this order: last mounted, first unmounted. The root is not
/// among them, because the running PID 1 lies on it.
pub(crate) fn to_unmount(mounts: &[Mount]) -> Vec<Mount> {
    mounts
        .iter()
        .rev()
        .filter(|mount| mount.target != Path::new("/") && !VOLATILE.contains(&mount.kind.as_str()))
        .cloned()
        .collect()
}

/// Blanks, tabs, line feeds and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"\
30 1 254:2 /ostree/deploy/keelson/deploy/ab.0 / ro,noatime - ext4 /dev/vda2 rw\n\
31 30 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw\n\
32 30 254:2 /ostree/deploy/keelson/var /var rw,noatime shared:1 master:2 - ext4 /dev/vda2 rw\n\
33 32 0:40 / /var/lib/a\\040b\\134c rw - overlay overlay rw\n\
34 30 0:22 / /run rw - tmpfs tmpfs rw\n\
35 34 0:41 / /run/keelson/hostd/layers/x ro - erofs /var/x rw\nodd line\n";

    #[test]
    fn last_mounted_is_first_unmounted() {
        let plan = to_unmount(&parse(INFO));
        let targets: Vec<_> = plan.iter().map(|m| m.target.to_str().unwrap()).collect();
        assert_eq!(
            targets,
            ["/run/keelson/hostd/layers/x", "/var/lib/a b\\c", "/var"]
        );
        assert_eq!(plan[1].kind, "overlay");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
