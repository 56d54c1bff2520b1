//! What this engine offers, by Docker's names. It decides which requests are accepted. `/info`,
//! `/version` and `inspect` are rendered from it too, so they show what the engine really accepts.

use std::path::{Path, PathBuf};

use hostd_containers::HostFacts;
use serde_json::{Map, Value, json};

/// The names of our own runtime. The first is the usual one. The others are the names that Docker's
/// clients use for Docker's runtime.
const OWN: [&str; 4] = [
    "keelson",
    "keelson-runtime",
    "runc",
    "io.containerd.runc.v2",
];

/// The runtimes that a container may ask for by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runtimes {
    /// Names and executables. The first is the default.
    entries: Vec<(String, PathBuf)>,
}

impl Runtimes {
    /// Our own runtime, under all its names.
    pub(crate) fn own(executable: &Path) -> Self {
        let entry = |name: &str| (name.to_owned(), executable.to_owned());
        Self {
            entries: OWN.map(entry).into(),
        }
    }

    /// The name of the default runtime.
    pub(crate) fn usual(&self) -> &str {
        self.entries.first().map_or(OWN[0], |(name, _)| name)
    }

    /// Whether there is a runtime of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == name)
    }

    /// `Runtimes` of `GET /info`.
    pub(crate) fn render(&self) -> Map<String, Value> {
        let entries = self.entries.iter();
        entries
            .map(|(name, path)| (name.clone(), json!({"path": path.display().to_string()})))
            .collect()
    }
}

/// The logging drivers that a container may ask for, besides `none`. The first is the default. All of
/// them keep logs in one format.
pub(crate) const LOG_DRIVERS: [&str; 3] = ["json-file", "local", "syslog"];

/// The default logging driver.
pub(crate) const LOG_DRIVER: &str = LOG_DRIVERS[0];

/// How root file systems are put together.
pub(crate) const STORAGE_DRIVER: &str = "overlayfs";

/// The default cgroup namespace.
pub(crate) const CGROUP_NAMESPACE: &str = "private";

/// The default protection of containers: the engine's seccomp policy, and a cgroup namespace of their
/// own.
pub(crate) const SECURITY_OPTIONS: [&str; 2] = ["name=seccomp,profile=builtin", "name=cgroupns"];

/// The cgroup controllers that limits need. With each: the member of `GET /info` that shows whether
/// there are such limits, and their name in a warning.
const LIMITS: [(&str, &[&str], &str); 5] = [
    ("memory", &["MemoryLimit", "SwapLimit"], "memory limit"),
    (
        "cpu",
        &["CpuCfsPeriod", "CpuCfsQuota", "CPUShares"],
        "cpu cfs quota and shares",
    ),
    ("cpuset", &["CPUSet"], "cpuset"),
    ("pids", &["PidsLimit"], "pids limit"),
    ("io", &[], "io limit"),
];

/// Which limits containers can have, as members of `GET /info`.
pub(crate) fn limits(facts: &HostFacts) -> Map<String, Value> {
    LIMITS
        .iter()
        .flat_map(|(controller, members, _)| {
            let granted = has(facts, controller);
            members
                .iter()
                .map(move |member| ((*member).to_owned(), json!(granted)))
        })
        .collect()
}

/// Which limits containers cannot have, one sentence each.
pub(crate) fn missing_limits(facts: &HostFacts) -> impl Iterator<Item = String> {
    let missing = LIMITS.iter();
    missing
        .filter(|(controller, ..)| !has(facts, controller))
        .map(|(controller, _, name)| {
            format!(
                "WARNING: No {name} support: cgroup v2 controller {controller} is not available"
            )
        })
}

fn has(facts: &HostFacts, controller: &str) -> bool {
    facts.controllers.iter().any(|known| known == controller)
}

/// Driver and version of the host's cgroups.
pub(crate) fn cgroups(facts: &HostFacts) -> (&'static str, &'static str) {
    match facts.cgroup_mount {
        Some(_) => ("cgroupfs", "2"),
        None => ("none", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_that_is_shown_can_be_asked_for() {
        let runtimes = Runtimes::own(Path::new("/usr/bin/keelson-runtime"));
        let shown = runtimes.render();
        assert_eq!(shown.len(), 4);
        for (name, runtime) in &shown {
            assert!(runtimes.has(name), "{name}");
            assert_eq!(runtime["path"], "/usr/bin/keelson-runtime");
        }
        assert!(shown.contains_key(runtimes.usual()));
        assert!(!runtimes.has("crun"));
    }

    #[test]
    fn limits_follow_the_controllers_that_the_engine_has() {
        let facts = HostFacts {
            controllers: vec!["memory".to_owned(), "pids".to_owned()],
            ..HostFacts::default()
        };
        let shown = limits(&facts);
        for (member, granted) in [
            ("MemoryLimit", true),
            ("SwapLimit", true),
            ("PidsLimit", true),
            ("CPUSet", false),
            ("CPUShares", false),
            ("CpuCfsPeriod", false),
            ("CpuCfsQuota", false),
        ] {
            assert_eq!(shown[member], granted, "{member}");
        }
        let missing: Vec<String> = missing_limits(&facts).collect();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing[0].contains("No cpu cfs quota and shares support"));
        assert_eq!(cgroups(&facts), ("none", ""));
    }
}
