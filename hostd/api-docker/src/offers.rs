//! What this engine offers, by Docker's names. It decides which requests are accepted. `/info`,
//! `/version` and `inspect` are rendered from it too, so they show what the engine really accepts.

use std::collections::BTreeMap;
use std::path::Path;

use hostd_containers::{AppArmorState, HostFacts};
use keelson_model::host::{EngineConfig, RuntimeConfig};
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
    /// Names, executables and their arguments. The first is the default.
    entries: Vec<(String, RuntimeConfig)>,
}

impl Runtimes {
    /// Our own runtime, under all its names, and the runtimes of the host's configuration, which
    /// can't use these names.
    pub(crate) fn new(executable: &Path, configured: &BTreeMap<String, RuntimeConfig>) -> Self {
        let own = RuntimeConfig {
            path: executable.to_owned(),
            arguments: Vec::new(),
        };
        let own = OWN.map(|name| (name.to_owned(), own.clone()));
        let others = configured.iter();
        let others = others.filter(|(name, _)| !OWN.contains(&name.as_str()));
        let others = others.map(|(name, runtime)| (name.clone(), runtime.clone()));
        Self {
            entries: own.into_iter().chain(others).collect(),
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
            .map(|(name, runtime)| {
                let mut shown = json!({"path": runtime.path.display().to_string()});
                if !runtime.arguments.is_empty() {
                    shown["runtimeArgs"] = json!(runtime.arguments);
                }
                (name.clone(), shown)
            })
            .collect()
    }
}

/// The runtime of this name, for the engine: `None` for its own.
pub(crate) fn runtime(name: &str) -> Option<String> {
    let own = name.is_empty() || OWN.contains(&name);
    (!own).then(|| name.to_owned())
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

/// The default protection of containers: AppArmor if the host has it, the engine's seccomp policy,
/// a user namespace if configured, and a cgroup namespace.
pub(crate) fn security_options(facts: &HostFacts, defaults: &EngineConfig) -> Vec<&'static str> {
    let users = defaults.user_namespaces.enabled;
    [
        ("name=apparmor", facts.apparmor != AppArmorState::Off),
        ("name=seccomp,profile=builtin", true),
        ("name=userns", users),
        ("name=cgroupns", true),
    ]
    .into_iter()
    .filter_map(|(option, given)| given.then_some(option))
    .collect()
}

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
        let other = |path: &str| RuntimeConfig {
            path: path.into(),
            arguments: vec!["--debug".to_owned()],
        };
        let configured = [("crun", "/usr/bin/crun"), ("runc", "/evil")];
        let configured = configured.map(|(name, path)| (name.to_owned(), other(path)));
        let own = Path::new("/usr/bin/keelson-runtime");
        let runtimes = Runtimes::new(own, &configured.into());
        let shown = runtimes.render();
        assert_eq!(shown.len(), 5);
        for (name, shown) in &shown {
            assert!(runtimes.has(name), "{name}");
            let wanted = match runtime(name) {
                None => json!({"path": "/usr/bin/keelson-runtime"}),
                Some(_) => json!({"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}),
            };
            assert_eq!(*shown, wanted, "{name}");
        }
        assert!(shown.contains_key(runtimes.usual()));
        assert!(!runtimes.has("youki"));
    }

    #[test]
    fn protections_follow_the_host() {
        let mut defaults = EngineConfig::default();
        let mut facts = HostFacts::default();
        assert_eq!(
            security_options(&facts, &defaults),
            ["name=seccomp,profile=builtin", "name=cgroupns"]
        );
        defaults.user_namespaces.enabled = true;
        facts.apparmor = AppArmorState::NoProfile;
        assert_eq!(
            security_options(&facts, &defaults),
            [
                "name=apparmor",
                "name=seccomp,profile=builtin",
                "name=userns",
                "name=cgroupns"
            ]
        );
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
