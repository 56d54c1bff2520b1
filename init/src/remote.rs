//! File systems that need another machine, or a process of this one: they are unmounted while the
//! network still works, and by processes that may be abandoned.
//!
//! A server that does not answer blocks whoever touches its file system, without a limit and in
//! the kernel. PID 1 therefore never does: no path below such a mount point is looked at, and each
//! umount(2) is a process of its own.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keelson_linux::mountinfo::{self, Mount};
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::console;

/// First argument that unmounts the file system at the path in the second one; a third one,
/// [`DETACH`], only takes it out of the tree.
pub(crate) const HELPER_UNMOUNT: &str = "unmount";
const DETACH: &str = "detach";

/// Time for all unmounts by force, and again for all that have to be detached.
const LIMIT: Duration = Duration::from_secs(4);
/// How many are unmounted at the same time.
const MOST: usize = 64;
/// Longest time without a call of the function that feeds the watchdog.
const TURN: Duration = Duration::from_millis(500);

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
/// detaching them. It ends in bounded time, and calls `alive` at least twice a second until then.
pub(crate) fn unmount_all(mut alive: impl FnMut()) {
    let present = || targets(&mountinfo::of_this_process().unwrap_or_default());
    for how in [None, Some(DETACH)] {
        let targets = present();
        if targets.is_empty() {
            return;
        }
        let running = targets.into_iter().filter_map(|target| start(target, how));
        for (_, target) in await_ends(running.collect(), LIMIT, &mut alive) {
            let target = target.display();
            console::warning(&format!("unmounting {target} hangs; going on without it"));
        }
    }
    for target in present() {
        console::warning(&format!("could not unmount {}", target.display()));
    }
}

/// Starts the process for one mount point.
fn start(target: PathBuf, how: Option<&str>) -> Option<(Child, PathBuf)> {
    let child = Command::new(crate::PROGRAM)
        .arg(HELPER_UNMOUNT)
        .arg(&target)
        .args(how)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    match child {
        Ok(child) => Some((child, target)),
        Err(error) => {
            console::warning(&format!("unmount {}: {error}", target.display()));
            None
        }
    }
}

/// Waits for the processes, at most this long, and returns those that still run. They print nothing:
/// their output is closed when they have ended.
fn await_ends(
    mut running: Vec<(Child, PathBuf)>,
    limit: Duration,
    alive: &mut impl FnMut(),
) -> Vec<(Child, PathBuf)> {
    let deadline = Instant::now() + limit;
    loop {
        alive();
        let left = deadline.saturating_duration_since(Instant::now());
        if running.is_empty() || left.is_zero() {
            return running;
        }
        let mut outputs: Vec<PollFd<'_>> = running
            .iter()
            .filter_map(|(child, _)| {
                Some(PollFd::new(
                    child.stdout.as_ref()?.as_fd(),
                    PollFlags::empty(),
                ))
            })
            .collect();
        let timeout = PollTimeout::try_from(left.min(TURN)).unwrap_or(PollTimeout::MAX);
        // An error shows as processes that still run at the deadline.
        let _ = poll(&mut outputs, timeout);
        let ended: Vec<bool> = outputs
            .iter()
            .map(|output| output.any() == Some(true))
            .collect();
        let mut ended = ended.into_iter();
        running.retain_mut(|(child, target)| {
            if ended.next() != Some(true) {
                return true;
            }
            if child.wait().is_ok_and(|status| status.success()) {
                console::say(&format!("unmounted {}", target.display()));
            }
            false
        });
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
    fn processes_that_hang_are_left_behind() {
        let start = |test: &str| {
            let child = Command::new("/proc/self/exe")
                .args(["--ignored", "--exact", test])
                .stdout(Stdio::piped())
                .spawn();
            (child.unwrap(), PathBuf::from(test))
        };
        let running = vec![start("no::such::test"), start("remote::tests::hang")];
        let mut turns = 0;
        let left = await_ends(running, Duration::from_secs(5), &mut || turns += 1);
        let mut left = left.into_iter();
        let (mut child, target) = left.next().unwrap();
        assert_eq!(target, Path::new("remote::tests::hang"));
        assert!(left.next().is_none());
        assert!(turns >= 10, "{turns}");
        child.kill().unwrap();
        let begin = Instant::now();
        let left = await_ends(vec![(child, target)], Duration::from_secs(60), &mut || ());
        assert!(left.is_empty() && begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    #[ignore = "the process that processes_that_hang_are_left_behind leaves behind"]
    fn hang() {
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn what_is_not_mounted_is_no_success() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!helper(directory.path(), None));
        assert!(!helper(directory.path(), Some(DETACH)));
    }
}
