//! What the configuration says about a service of the machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[services.NAME]`: a container that belongs to the machine. The OS's own are in the files of
/// `/usr/share/keelson/services`, which are a layer of the configuration. Every member is optional, so
/// that a later layer changes single ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// Whether it runs; true.
    pub enabled: Option<bool>,
    /// One line for people.
    pub description: Option<String>,
    /// An image of a registry, which is pulled if the machine does not have it.
    pub image: Option<String>,
    /// Layers of the OS, topmost first: `console`, `base`. They count if there is no `image`.
    pub layers: Vec<String>,
    /// The command and its arguments; the image's if there is none.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Whether a small init runs first, which passes on signals and reaps orphans; false.
    pub init: Option<bool>,
    /// `user` or `user:group`, as the image knows them or by number; root.
    pub user: Option<String>,
    /// `host`, `bridge` (the default network of containers) or `none`; `none`.
    pub network: Option<String>,
    /// Capabilities that the service has, and no others: `CAP_SYS_TIME`, ….
    pub capabilities: Vec<String>,
    /// Whether programs may gain privileges when they are executed, as sudo does; false.
    pub new_privileges: Option<bool>,
    /// The AppArmor profile, if the machine has AppArmor; the one of all containers.
    pub apparmor: Option<String>,
    /// Whether the root file system may be written to. What was written is lost when the service's
    /// container is made anew; false.
    pub writable: Option<bool>,
    /// `[[services.NAME.mounts]]`: directories and files of the host.
    pub mounts: Vec<ServiceMount>,
    /// Device nodes for the service, those that the machine has: `/dev/ptp0`, `/dev/rtc0`.
    pub devices: Vec<String>,
    /// Limits.
    pub resources: ServiceResources,
    /// How its health is checked.
    pub health: ServiceHealth,
    /// What is executed in it when files of the host change.
    pub reload: ServiceReload,
    /// Services that are started, or have failed, before this one starts.
    pub after: Vec<String>,
    /// Services without which this one does not start. They must run, and be healthy if that is
    /// checked.
    pub requires: Vec<String>,
    /// What happens when it ends by itself; always.
    pub restart: Option<ServiceRestart>,
    /// What is kept of its output.
    pub log: ServiceLog,
}

impl ServiceConfig {
    /// Whether it is to run.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The services that start, or are known to have failed, before this one.
    pub fn predecessors(&self) -> impl Iterator<Item = &String> {
        self.after.iter().chain(&self.requires)
    }
}

/// What happens when a service ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceRestart {
    /// It starts again.
    #[default]
    Always,
    /// It starts again when its exit code is not 0.
    OnFailure,
    /// Nothing.
    Never,
}

/// A directory or file of the host inside the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceMount {
    /// The path on the host. `{state}` at the start is replaced by the service's own directory
    /// `/var/lib/keelson/services/NAME`. Missing directories in it are made.
    pub source: String,
    /// The path in the service.
    pub target: String,
    /// Whether the service may write there.
    #[serde(default)]
    pub writable: bool,
    /// Skip the mount if the source does not exist, instead of failing.
    #[serde(default)]
    pub optional: bool,
    /// Make a directory if the source does not exist, for the service's user if that is a number.
    #[serde(default)]
    pub create: bool,
}

/// `[services.NAME.resources]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceResources {
    /// Bytes of memory; 0: no limit.
    pub memory: Option<u64>,
    /// Number of processes and threads; -1: no limit.
    pub pids: Option<i64>,
    /// Processor time in thousandths of one processor; 0: no limit.
    pub millicpus: Option<u32>,
}

/// `[services.NAME.health]`. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceHealth {
    /// A command in the service; exit code 0 means healthy. Empty: its health is not checked.
    pub command: Vec<String>,
    /// Between two checks; 30.
    pub interval: Option<u32>,
    /// The limit of one check; 30.
    pub timeout: Option<u32>,
    /// How many failures in a row mean unhealthy; 3.
    pub retries: Option<u32>,
    /// The time after the start in which failures do not count; 0.
    pub start_period: Option<u32>,
}

/// `[services.NAME.reload]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceReload {
    /// Directories of the host.
    pub watch: Vec<String>,
    /// A command that is executed in the service when something changes in one of them.
    pub command: Vec<String>,
}

/// `[services.NAME.log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceLog {
    /// Bytes after which the file is rotated; `engine.log_max_size`.
    pub max_size: Option<u64>,
    /// Files that are kept; `engine.log_max_files`.
    pub max_files: Option<u32>,
}
