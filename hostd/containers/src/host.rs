//! The host's resources: processors, capabilities, cgroup controllers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_cgroup::{Cgroup, controllers};

use crate::apparmor::{self, AppArmorState};
use crate::cgroup_parent::CgroupParent;

/// Facts that decide which options are possible.
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
    /// Directories of sysfs with the temperatures of processors, which containers must not see.
    pub thermal: Vec<PathBuf>,
    /// Whether AppArmor confines containers.
    pub apparmor: AppArmorState,
}

/// The host's memory in bytes. It may grow while the host runs.
pub fn host_memory() -> u64 {
    let memory = rustix::system::sysinfo();
    memory.totalram.saturating_mul(memory.mem_unit.into())
}

impl HostFacts {
    /// The cgroup of processes that outlive the engine: shims, and the containers' resolver.
    pub(crate) fn shim_cgroup(&self, parent: &CgroupParent) -> Option<PathBuf> {
        let mount = self.cgroup_mount.as_ref()?;
        Some(mount.join(parent.as_str()).join("shim"))
    }

    /// Queries the kernel, and prepares the parent cgroups of containers.
    pub fn detect(parent: &CgroupParent) -> Self {
        let cgroup_mount = keelson_cgroup::mount_point();
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
            thermal: thermal(Path::new("/sys/devices/system/cpu")),
            apparmor: apparmor::Places::default().load(),
        }
    }
}

/// The `cpuN/thermal_throttle` below a directory, by number.
fn thermal(processors: &Path) -> Vec<PathBuf> {
    let number = |path: &Path| -> Option<u32> {
        path.file_name()?
            .to_str()?
            .strip_prefix("cpu")?
            .parse()
            .ok()
    };
    let entries = fs::read_dir(processors).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter_map(|path| Some((number(&path)?, path.join("thermal_throttle"))))
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Removes the empty cgroups that [`HostFacts::detect`] and the shims have created.
pub(crate) fn remove_cgroups(mount: &Path, parent: &CgroupParent) {
    let parent = mount.join(parent.as_str());
    for group in ["user", "system", "shim"].map(|name| parent.join(name)) {
        // A shim ends a moment after it has reported the end of its container.
        if let Err(error) = keelson_cgroup::remove_when_empty(&group, Duration::from_secs(1)) {
            tracing::warn!(%error, "cgroup not removed");
        }
    }
    // Containers may have requested other settings there.
    if let Err(error) = keelson_cgroup::remove_when_empty(&parent, Duration::from_secs(1)) {
        tracing::warn!(%error, "cgroup not removed");
    }
}

fn bounding_set(status: &str) -> Option<u64> {
    let digits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

/// Creates the parent with `user` and `system` in it, and lets their children use every controller
/// that the root offers. Returns those that they can use.
fn prepare_cgroups(mount: &Path, parent: &CgroupParent) -> Vec<String> {
    let parent = mount.join(parent.as_str());
    let groups = [parent.clone(), parent.join("user"), parent.join("system")];
    for group in &groups {
        if let Err(error) = Cgroup::create(group.clone()) {
            tracing::warn!(%error, "cgroup not created");
            return Vec::new();
        }
    }
    let mut usable = None;
    for group in std::iter::once(mount).chain(groups.iter().map(PathBuf::as_path)) {
        match controllers::enable_all_for_children(group) {
            Ok((enabled, refused)) => {
                for error in refused {
                    tracing::warn!(%error, "cgroup controller not enabled");
                }
                usable = Some(enabled);
            }
            Err(error) => {
                tracing::warn!(%error, "cgroup controllers not known");
                return Vec::new();
            }
        }
    }
    if let Some(user) = groups.get(1) {
        keep_memory_for_the_host(user);
    }
    usable.unwrap_or_default().into_iter().collect()
}

/// Bounds the memory of all containers of users together. Without that, one that takes everything
/// keeps the kernel reading the host's own programs from the disk for minutes before it is killed.
fn keep_memory_for_the_host(user: &Path) {
    let total = host_memory();
    let most = total.saturating_sub(reserve(total)).to_string();
    let kept = Cgroup::open(user.to_owned()).and_then(|group| {
        // Not without the controller.
        match group.has_file("memory.max") {
            true => group.write("memory.max", &most),
            false => Ok(()),
        }
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "no memory is kept for the host");
    }
}

/// How many of the machine's bytes of memory containers don't get: a quarter, but no more than
/// 128 MiB, or 1 % of large machines.
fn reserve(total: u64) -> u64 {
    (total / 4).min(128 << 20).max(total / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_some_memory() {
        assert_eq!(reserve(128 << 20), 32 << 20);
        assert_eq!(reserve(8 << 30), 128 << 20);
        assert_eq!(reserve(100 << 30), 1 << 30);
    }

    #[test]
    fn throttling_counters_of_processors_are_found() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        for name in ["cpu10", "cpu2", "cpufreq", "cpuidle"] {
            fs::create_dir_all(base.join(name).join("thermal_throttle")).unwrap();
        }
        fs::create_dir_all(base.join("cpu3/topology")).unwrap();
        let wanted = ["cpu2", "cpu10"].map(|name| base.join(name).join("thermal_throttle"));
        assert_eq!(thermal(base), wanted);
        assert_eq!(thermal(&base.join("none")), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_bounding_set_is_a_mask() {
        assert_eq!(
            bounding_set("Name:\tx\nCapBnd:\t00000000a80425fb\n"),
            Some(0xa804_25fb)
        );
        assert_eq!(bounding_set("CapBnd: zz"), None);
    }
}
