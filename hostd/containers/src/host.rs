//! What the host offers: processors, capabilities, cgroup controllers.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::types::CgroupParent;

/// Facts that decide which options can be granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Where cgroup v2 is mounted.
    pub cgroup_mount: Option<PathBuf>,
    /// Controllers that containers can have: `cpu`, `memory`, ….
    pub controllers: Vec<String>,
    /// Number of processors online.
    pub cpus: u32,
    /// Capabilities that containers can have, as a bit mask.
    pub capabilities: u64,
}

impl HostFacts {
    /// Asks the kernel, and prepares the cgroups that containers go into.
    pub fn detect(parent: &CgroupParent) -> Self {
        let cgroup_mount = fs::read_to_string("/proc/self/mountinfo")
            .ok()
            .and_then(|text| cgroup_mount(&text));
        let controllers = cgroup_mount
            .as_deref()
            .map(|mount| prepare_cgroups(mount, parent))
            .unwrap_or_default();
        let capabilities = fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|text| bounding_set(&text))
            .unwrap_or_default();
        let cpus = std::thread::available_parallelism()
            .map_or(1, |number| u32::try_from(number.get()).unwrap_or(1));
        Self {
            cgroup_mount,
            controllers,
            cpus,
            capabilities,
        }
    }
}

/// Removes the cgroups that [`HostFacts::detect`] and the shims made, as far as they are empty.
pub(crate) fn remove_cgroups(mount: &Path, parent: &CgroupParent) {
    let parent = mount.join(parent.as_str());
    for folder in ["user", "system", "shim"].map(|name| parent.join(name)) {
        // A shim ends a moment after it told of its container's end.
        let deadline = Instant::now() + Duration::from_secs(1);
        while fs::remove_dir(&folder).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let _ = fs::remove_dir(parent);
}

/// The mount point of cgroup v2 in mountinfo (proc(5)).
fn cgroup_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next() == Some("cgroup2"))
            .then(|| before.split(' ').nth(4).map(PathBuf::from))
            .flatten()
    })
}

fn bounding_set(status: &str) -> Option<u64> {
    let digits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

/// Makes the parent with `user` and `system` in it, and lets their children have every controller
/// that the root offers. Returns those that really are there.
fn prepare_cgroups(mount: &Path, parent: &CgroupParent) -> Vec<String> {
    let parent = mount.join(parent.as_str());
    for folder in [parent.clone(), parent.join("user"), parent.join("system")] {
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cgroup not made");
                return Vec::new();
            }
        }
    }
    let mut available = list(&mount.join("cgroup.controllers"));
    for folder in [
        mount.to_owned(),
        parent.clone(),
        parent.join("user"),
        parent.join("system"),
    ] {
        let enabled = list(&folder.join("cgroup.subtree_control"));
        available.retain(|controller| {
            // One at a time: a single unavailable one would make the kernel refuse all.
            enabled.contains(controller)
                || fs::write(
                    folder.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )
                .inspect_err(|error| {
                    tracing::warn!(controller, folder = %folder.display(), %error, "cgroup controller not enabled");
                })
                .is_ok()
        });
    }
    available
}

fn list(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_and_status() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            cgroup_mount(hybrid),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
        assert_eq!(cgroup_mount("garbage\n\n"), None);
        assert_eq!(
            bounding_set("Name:\tx\nCapBnd:\t00000000a80425fb\n"),
            Some(0xa804_25fb)
        );
        assert_eq!(bounding_set("CapBnd: zz"), None);
    }
}
