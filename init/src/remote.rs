//! File systems that need another machine, or a process of this one: they are unmounted while the
//! network still works, and by processes that may be abandoned.
//!
//! A server that does not answer blocks whoever touches its file system, without a limit and in
//! the kernel. PID 1 therefore never does: no path below such a mount point is looked at, and each
//! umount(2) is a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keelson_linux::mountinfo::{self, Mount};
use nix::mount::{MntFlags, umount2};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::console;

/// First argument that unmounts the file system at the path in the second one; a third one,
/// [`DETACH`], only takes it out of the tree.
pub(crate) const HELPER_UNMOUNT: &str = "unmount";
const DETACH: &str = "detach";

/// Time for all unmounts by force, and again for all that have to be detached.
const LIMIT: Duration = Duration::from_secs(4);
/// How many are unmounted at the same time.
const MOST: usize = 64;

/// Types of file systems whose data lie elsewhere. FUSE's are answered by a process, which may have
/// been stopped before.
const REMOTE: &[&str] = &[
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse",
    "fuseblk",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "smb3",
    "smbfs",
    "virtiofs",
];

/// Whether a mount needs someone who may not answer.
pub(crate) fn is_remote(mount: &Mount) -> bool {
    REMOTE.contains(&mount.kind.as_str()) || mount.kind.starts_with("fuse.")
}

/// The mount points of such file systems, the last mounted first.
fn targets(mounts: &[Mount]) -> Vec<PathBuf> {
    let remote = mounts.iter().rev().filter(|mount| is_remote(mount));
    remote
        .map(|mount| mount.target.clone())
        .take(MOST)
        .collect()
}

/// Unmounts all of them: by force first, which ends what waits for the server, and then by
/// detaching them. It ends in bounded time.
pub(crate) fn unmount_all() {
    let present = || targets(&mountinfo::of_this_process().unwrap_or_default());
    for how in [None, Some(DETACH)] {
        let targets = present();
        if targets.is_empty() {
            return;
        }
        run(&targets, how);
    }
    for target in present() {
        console::warning(&format!("could not unmount {}", target.display()));
    }
}

/// Starts one process for each mount point, and waits for them at most [`LIMIT`].
fn run(targets: &[PathBuf], how: Option<&str>) {
    let mut running: Vec<(Pid, &Path)> = Vec::new();
    for target in targets {
        let child = Command::new(crate::PROGRAM)
            .arg(HELPER_UNMOUNT)
            .arg(target)
            .args(how)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            // Dropping the handle does not affect the process.
            Ok(child) => {
                let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
                running.push((pid, target));
            }
            Err(error) => console::warning(&format!("unmount {}: {error}", target.display())),
        }
    }
    let deadline = Instant::now() + LIMIT;
    while !running.is_empty() && Instant::now() < deadline {
        running.retain(
            |(pid, target)| match waitpid(*pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => true,
                Ok(WaitStatus::Exited(_, 0)) => {
                    console::say(&format!("unmounted {}", target.display()));
                    false
                }
                _ => false,
            },
        );
        thread::sleep(Duration::from_millis(10));
    }
    for (_, target) in running {
        let target = target.display();
        console::warning(&format!("unmounting {target} hangs; going on without it"));
    }
}

/// The process for one mount point. Returns whether it is unmounted.
pub(crate) fn helper(target: &Path, how: Option<&str>) -> bool {
    let flags = match how {
        Some(DETACH) => MntFlags::MNT_DETACH,
        _ => MntFlags::MNT_FORCE,
    };
    umount2(target, flags | MntFlags::UMOUNT_NOFOLLOW).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"\
30 1 254:2 / / ro,noatime - ext4 /dev/vda2 rw\n\
31 30 0:40 / /var/lib/a rw - nfs4 server:/a rw,hard\n\
32 30 0:41 / /var/lib/b rw - fuse.sshfs user@host: rw\n\
33 30 0:42 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n\
34 31 0:43 / /var/lib/a/c rw - cifs //server/c rw\n\
35 30 0:44 / /var/lib/o rw - overlay overlay rw\n";

    #[test]
    fn only_those_that_need_others_and_the_last_first() {
        let all = targets(&mountinfo::parse(INFO));
        let all: Vec<&str> = all.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(all, ["/var/lib/a/c", "/var/lib/b", "/var/lib/a"]);
    }

    #[test]
    fn what_is_not_mounted_is_no_success() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!helper(directory.path(), None));
        assert!(!helper(directory.path(), Some(DETACH)));
    }
}
