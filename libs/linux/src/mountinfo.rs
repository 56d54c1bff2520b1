//! Mounts as `/proc/<pid>/mountinfo` lists them (proc_pid_mountinfo(5)).
//!
//! The kernel writes any bytes that a path may have, so this works on bytes. A line of an unknown
//! form is skipped: PID 1 must still unmount the other file systems
//! (docs/decisions/0020-small-formats-of-our-own.md).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number for it, as statx(2) returns it.
    pub id: u64,
    /// The part of the file system that is mounted; `/` for all of it.
    pub root: PathBuf,
    /// The mount point, relative to the root directory of the process.
    pub target: PathBuf,
    /// Type of the file system: `ext4`, `cgroup2`, ….
    pub kind: String,
    /// Mounts and unmounts below it appear in its peers.
    pub is_shared: bool,
    /// Mounts and unmounts below its master appear in it.
    pub is_slave: bool,
}

/// The mounts of this process, the latest last.
///
/// # Errors
/// `/proc` is not mounted.
pub fn of_this_process() -> io::Result<Vec<Mount>> {
    fs::read("/proc/self/mountinfo").map(|bytes| parse(&bytes))
}

/// Parses the content of a mountinfo file, in the order of mounting.
pub fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let root = unescape(fields.nth(2)?);
    let target = unescape(fields.next()?);
    // The number of optional fields varies; a single hyphen ends them.
    let (mut is_shared, mut is_slave) = (false, false);
    for field in fields.by_ref().skip(1).take_while(|field| *field != b"-") {
        is_shared |= field.starts_with(b"shared:");
        is_slave |= field.starts_with(b"master:");
    }
    let kind = fields.next()?;
    Some(Mount {
        id,
        is_shared,
        is_slave,
        root: PathBuf::from(OsString::from_vec(root)),
        target: PathBuf::from(OsString::from_vec(target)),
        kind: String::from_utf8_lossy(kind).into_owned(),
    })
}

/// The kernel writes spaces, tabs, line feeds and backslashes as a backslash and three octal digits.
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
    use std::path::Path;

    use super::*;

    #[test]
    fn lines_with_optional_fields_and_escapes() {
        let mounts = parse(
            b"30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
              33 30 0:29 /a /sys/fs/cgroup/unified rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw\n\
              34 30 0:30 / /var/lib/a\\040b\\134c rw - overlay overlay rw\n\
              odd line\n\
              35 30 0:31 / /var/\xff rw - ext4 /dev/vda rw\n",
        );
        let seen: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.root.to_str().unwrap(), mount.kind.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("/", "tmpfs"),
                ("/a", "cgroup2"),
                ("/", "overlay"),
                ("/", "ext4")
            ]
        );
        let propagation = mounts.iter().map(|mount| (mount.is_shared, mount.is_slave));
        let none = (false, false);
        assert_eq!(
            propagation.collect::<Vec<_>>(),
            [none, (true, true), none, none]
        );
        assert_eq!(mounts[1].id, 33);
        assert_eq!(mounts[1].target, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[2].target, Path::new("/var/lib/a b\\c"));
        assert!(parse(b"").is_empty());
    }

    #[test]
    fn this_process_has_a_root() {
        let mounts = of_this_process().unwrap();
        assert!(mounts.iter().any(|mount| mount.target == Path::new("/")));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
