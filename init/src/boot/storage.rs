//! File systems that the configuration names (`[[storage.mount]]`). A process of its own waits for
//! their devices, checks them and mounts them, because a device may hang; the boot waits for it, so that
//! nobody stores data where they will be mounted, but not for ever.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keelson_config::Sources;
use keelson_linux::mountinfo;
use keelson_model::host::{MountConfig, StorageConfig};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sys_mount::MountFlags;

use super::program;
use crate::cmdline::CommandLine;
use crate::disk::check::{self, CheckError};
use crate::disk::{grow, volume};
use crate::mount::{self, MountError};
use crate::uevent::{Received, UeventSocket};
use crate::{console, devices};

/// First argument of the process.
pub(crate) const HELPER_STORAGE: &str = "mount-storage";
/// How long the devices together are waited for.
const DEVICES_LIMIT: Duration = Duration::from_secs(30);
/// How long the boot waits: a check may take longer, and goes on then.
const LIMIT: Duration = Duration::from_secs(60);

/// Why a file system is not mounted.
#[derive(Debug, thiserror::Error)]
enum StorageError {
    #[error("there is no {device} after {} s", DEVICES_LIMIT.as_secs())]
    Missing { device: String },
    #[error("{device} is ambiguous: {} have it", names.join(" and "))]
    Ambiguous { device: String, names: Vec<String> },
    #[error("{} has no known file system; name its kind", node.display())]
    Unknown { node: PathBuf },
    #[error("make {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("a symbolic link is on the way to {}", path.display())]
    Link { path: PathBuf },
    #[error("wait for device events: {0}")]
    Events(io::Error),
    #[error("read the present mounts: {0}")]
    Mounts(io::Error),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Has all of them mounted, and returns the problems.
pub(super) fn mount_all(storage: &StorageConfig) -> Vec<String> {
    if storage.mount.is_empty() {
        return Vec::new();
    }
    let mut helper = Command::new(crate::PROGRAM);
    helper.arg(HELPER_STORAGE);
    program::problems(&mut helper, LIMIT).unwrap_or_else(|error| vec![error.to_string()])
}

/// The process. Returns the number of problems; each is printed.
pub(crate) fn helper() -> usize {
    let mut wanted = keelson_config::current(&Sources::machine())
        .config
        .storage
        .mount;
    // A directory before those in it.
    wanted.sort_by(|left, right| Path::new(&left.path).cmp(Path::new(&right.path)));
    let deadline = Instant::now() + DEVICES_LIMIT;
    let mut problems = 0;
    for mount in &wanted {
        if let Err(error) = mount_one(mount, deadline) {
            problems += 1;
            let problem = format!("storage {}: {error}", mount.path);
            // Nobody reads it any more when the boot has gone on.
            if writeln!(io::stdout(), "{problem}").is_err() {
                console::warning(&problem);
            }
        }
    }
    problems
}

fn mount_one(mount: &MountConfig, deadline: Instant) -> Result<(), StorageError> {
    let target = Path::new(&mount.path);
    let present = mountinfo::of_this_process().map_err(StorageError::Mounts)?;
    if present.iter().any(|mount| mount.target == target) {
        return Ok(());
    }
    let node = await_device(&mount.device, deadline)?;
    let found = volume::of_device(&node);
    let kind = mount.kind.as_deref().or(found.as_ref().map(|v| v.kind));
    let kind = kind.ok_or_else(|| StorageError::Unknown { node: node.clone() })?;
    if let Ok(Some(superblock)) = grow::superblock(&node) {
        let name = node.strip_prefix("/dev").unwrap_or(&node).display();
        check::check(
            &CommandLine::read(),
            &name.to_string(),
            superblock.complaint,
        )?;
    }
    prepare(target)?;
    let (flags, data) = options(mount.options.as_deref().unwrap_or_default());
    mount::mount(kind, &node.to_string_lossy(), target, flags, &data)?;
    console::say(&format!("mounted {} at {}", node.display(), mount.path));
    Ok(())
}

/// Waits for the device.
fn await_device(device: &str, deadline: Instant) -> Result<PathBuf, StorageError> {
    // Before the first look, so that no event is missed.
    let events = UeventSocket::open().map_err(StorageError::Events)?;
    loop {
        let mut nodes = devices::find(device);
        if nodes.len() > 1 {
            let names = nodes.iter().map(|node| node.display().to_string());
            return Err(StorageError::Ambiguous {
                device: device.to_owned(),
                names: names.collect(),
            });
        }
        if let Some(node) = nodes.pop() {
            return Ok(node);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut descriptors = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, timeout) {
            Ok(0) => {
                return Err(StorageError::Missing {
                    device: device.to_owned(),
                });
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(StorageError::Events(error.into())),
        }
        // What has happened does not matter: all devices are looked at again.
        while events.receive().map_err(StorageError::Events)? != Received::Nothing {}
    }
}

/// Makes the directory. No link may lead the mount elsewhere.
fn prepare(target: &Path) -> Result<(), StorageError> {
    let failed = |source| StorageError::Directory {
        path: target.to_owned(),
        source,
    };
    fs::create_dir_all(target).map_err(failed)?;
    match target.canonicalize().map_err(failed)? == target {
        true => Ok(()),
        false => Err(StorageError::Link {
            path: target.to_owned(),
        }),
    }
}

/// mount(8)'s options as the kernel takes them. Neither devices nor set-user-id programs work unless
/// asked for; programs do, because containers run them from volumes.
fn options(text: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mut data = Vec::new();
    for word in text.split(',').map(str::trim) {
        let (flag, set) = match word {
            "" | "defaults" | "auto" | "noauto" | "nofail" | "async" | "rw" => continue,
            "ro" => (MountFlags::RDONLY, true),
            "suid" => (MountFlags::NOSUID, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "dev" => (MountFlags::NODEV, false),
            "nodev" => (MountFlags::NODEV, true),
            "exec" => (MountFlags::NOEXEC, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "noatime" => (MountFlags::NOATIME, true),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "relatime" => (MountFlags::RELATIME, true),
            "strictatime" => (MountFlags::STRICTATIME, true),
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, set);
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_mount() {
        let usual = MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(options(""), (usual, String::new()));
        let (flags, data) = options("ro,noatime,suid,discard,commit=60,defaults");
        let wanted = MountFlags::NODEV | MountFlags::RDONLY | MountFlags::NOATIME;
        assert_eq!((flags, data.as_str()), (wanted, "discard,commit=60"));
        assert!(options("noexec").0.contains(MountFlags::NOEXEC));
    }

    #[test]
    fn links_do_not_lead_a_mount_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        prepare(&root.join("a/b")).unwrap();
        assert!(root.join("a/b").is_dir());
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        let error = prepare(&root.join("link/c")).unwrap_err();
        assert!(matches!(error, StorageError::Link { .. }), "{error}");
    }

    #[test]
    fn an_absent_device_is_not_waited_for_after_the_deadline() {
        let error = match await_device("LABEL=no-such-label-anywhere", Instant::now()) {
            Err(StorageError::Events(error)) => {
                keelson_testing::skip("device events", error);
                return;
            }
            other => other.unwrap_err(),
        };
        assert!(
            error.to_string().contains("there is no LABEL=no-such"),
            "{error}"
        );
    }
}
