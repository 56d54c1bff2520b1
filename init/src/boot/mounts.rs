//! The API file systems.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use sys_mount::MountFlags;

use crate::mount::{self, DATA_ONLY};

struct ApiMount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
    /// Whether the mount point may be missing: a kernel or firmware without this feature.
    optional: bool,
}

const fn api(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
    optional: bool,
) -> ApiMount {
    ApiMount {
        kind,
        target,
        flags,
        options,
        optional,
    }
}

const NO_SETUID: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// Memory that any program may write to.
const SHARED_OPTIONS: &str = "mode=1777,size=25%,nr_inodes=400k";

/// In the order of mounting. Group 5 is `tty` on every Debian system.
const MOUNTS: [ApiMount; 11] = [
    api("proc", "/proc", DATA_ONLY, "", false),
    api("sysfs", "/sys", DATA_ONLY, "", false),
    api(
        "devtmpfs",
        "/dev",
        MountFlags::NOSUID,
        mount::DEV_OPTIONS,
        false,
    ),
    api("tmpfs", "/run", NO_SETUID, mount::RUN_OPTIONS, false),
    api(
        "devpts",
        "/dev/pts",
        NO_PROGRAMS,
        "gid=5,mode=0620,ptmxmode=0666",
        false,
    ),
    api("tmpfs", "/dev/shm", NO_SETUID, SHARED_OPTIONS, false),
    api("mqueue", "/dev/mqueue", DATA_ONLY, "", false),
    api("tmpfs", "/tmp", NO_SETUID, SHARED_OPTIONS, false),
    api("securityfs", "/sys/kernel/security", DATA_ONLY, "", true),
    api("bpf", "/sys/fs/bpf", DATA_ONLY, "mode=0700", true),
    api("efivarfs", "/sys/firmware/efi/efivars", DATA_ONLY, "", true),
];

/// Links that programs expect in /dev.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts what stage 1 has not mounted yet.
pub(crate) fn mount_all() -> Vec<String> {
    let mut problems = Vec::new();
    for entry in &MOUNTS {
        let target = Path::new(entry.target);
        if target.starts_with("/dev") && !target.exists() {
            // /dev is ours, so its directories are, too. If this fails, the mount reports it.
            let _ = fs::create_dir(target);
        }
        if entry.optional && !target.exists() || is_mount_point(target) {
            continue;
        }
        let mounted = mount::mount(entry.kind, entry.kind, target, entry.flags, entry.options);
        problems.extend(mounted.err().map(|error| error.to_string()));
    }
    for (target, link) in LINKS {
        if let Err(error) = symlink(target, link)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            problems.push(format!("symlink {link}: {error}"));
        }
    }
    problems
}

/// Whether the path is a mount point: then it is on another device than its parent directory.
fn is_mount_point(path: &Path) -> bool {
    let (Ok(own), Some(Ok(above))) = (
        fs::symlink_metadata(path),
        path.parent().map(fs::symlink_metadata),
    ) else {
        return false;
    };
    own.dev() != above.dev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_in_memory_is_bounded_and_carries_no_privileges() {
        for entry in &MOUNTS {
            assert!(entry.flags.contains(MountFlags::NOSUID), "{}", entry.target);
            if entry.kind.ends_with("tmpfs") {
                for bound in ["mode=", "size=", "nr_inodes="] {
                    assert!(entry.options.contains(bound), "{}: {bound}", entry.target);
                }
            }
            let devices = ["/dev", "/dev/pts"].contains(&entry.target);
            assert!(
                devices || entry.flags.contains(MountFlags::NODEV),
                "{}",
                entry.target
            );
        }
    }
}
