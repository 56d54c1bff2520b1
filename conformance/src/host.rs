//! The machine: finds its cgroups, and removes everything that a case left behind.

use std::path::{Path, PathBuf};

use nix::mount::MntFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The directory, in every cgroup hierarchy, for all containers of this run.
pub(crate) fn cgroup_parent() -> String {
    format!("keelson-conformance-{}", std::process::id())
}

/// Removes the directory of [`cgroup_parent`] in all hierarchies when no case runs any more. A
/// runtime that was abandoned (crun in a frozen cgroup) may have made cgroups there after its case
/// was cleaned up.
pub(crate) fn remove_cgroup_parent() {
    for mount in cgroup_mounts() {
        remove_cgroup(&mount.join(cgroup_parent()));
    }
}

/// The mount points of all cgroup hierarchies, of both versions.
pub(crate) fn cgroup_mounts() -> Vec<PathBuf> {
    mounts()
        .filter(|(_, kind)| kind == "cgroup" || kind == "cgroup2")
        .map(|(path, _)| path)
        .collect()
}

/// The directories in all hierarchies of a cgroup path (with a leading slash) that exist.
pub(crate) fn cgroup_directories(path: &str) -> Vec<PathBuf> {
    cgroup_mounts()
        .into_iter()
        .map(|mount| mount.join(path.trim_start_matches('/')))
        .filter(|directory| directory.is_dir())
        .collect()
}

/// Mount points with the types of their file systems, the latest last.
fn mounts() -> impl Iterator<Item = (PathBuf, String)> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (fields, tail) = line.split_once(" - ")?;
            let place = fields.split(' ').nth(4)?;
            let kind = tail.split(' ').next()?;
            Some((PathBuf::from(place), kind.to_owned()))
        })
        .collect();
    found.into_iter()
}

/// Kills processes whose root directory is below a directory. From the host, the root of a
/// container shows only in its mounts: `/proc/PID/mountinfo` names the directory as the source of
/// the root mount.
pub(crate) fn kill_inside(directory: &Path) {
    let directory = directory.to_string_lossy().into_owned();
    for pid in processes() {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let inside = mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some("/") && line.contains(&directory));
        if inside {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The numbers of all processes.
pub(crate) fn processes() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect()
}

/// Removes the cgroups of a case in every hierarchy. `name` is a prefix that does not match the
/// names of other cases.
pub(crate) fn remove_cgroups(name: &str) {
    for mount in cgroup_mounts() {
        let Ok(entries) = std::fs::read_dir(mount.join(cgroup_parent())) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(name) {
                remove_cgroup(&entry.path());
            }
        }
    }
}

fn remove_cgroup(directory: &Path) {
    let _ = std::fs::write(directory.join("cgroup.freeze"), "0");
    let _ = std::fs::write(directory.join("freezer.state"), "THAWED");
    if let Ok(entries) = std::fs::read_dir(directory) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let procs = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // A killed process stays in its cgroup until the kernel has cleaned it up.
    let _ = crate::command::eventually("empty cgroup", || {
        Ok(std::fs::remove_dir(directory).is_ok() || !directory.exists())
    });
}

/// Unmounts everything below a directory.
pub(crate) fn unmount_below(directory: &Path) {
    let mut places: Vec<PathBuf> = mounts()
        .map(|(place, _)| place)
        .filter(|place| place.starts_with(directory))
        .collect();
    places.reverse();
    for place in places {
        if let Err(error) = nix::mount::umount2(&place, MntFlags::MNT_DETACH) {
            eprintln!("unmount {}: {error}", place.display());
        }
    }
}
