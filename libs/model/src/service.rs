//! System services: containers that belong to the machine, not to a Docker client.
//!
//! A service is a directory `/usr/lib/keelson/services/<name>/` with `service.toml`
//! ([`ServiceSpec`]) and `rootfs.erofs`. Both are part of the OS commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `service.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Version of this format; 1.
    pub version: u32,
    /// One line for people.
    pub description: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// `host` or `none`.
    #[serde(default = "default_network")]
    pub network: String,
    /// Capabilities that the service has, and no others: `CAP_SYS_TIME`, ….
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Directories and files to mount.
    #[serde(default)]
    pub mounts: Vec<ServiceMount>,
    /// Device nodes for the service, if the machine has them: `/dev/ptp0`, `/dev/rtc0`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Limits.
    #[serde(default)]
    pub resources: ServiceResources,
    /// Services that must run before this one starts. This one is stopped before them.
    #[serde(default)]
    pub after: Vec<String>,
}

fn default_network() -> String {
    "none".to_owned()
}

/// A directory or file of the host inside the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceMount {
    /// The path on the host. `{state}` at the start is replaced by the service's own directory
    /// `/var/lib/keelson/services/<name>`. Missing directories in it are made.
    pub source: String,
    /// The path in the service.
    pub target: String,
    /// Whether the service may write there.
    #[serde(default)]
    pub writable: bool,
    /// Skip the mount if the source does not exist, instead of failing.
    #[serde(default)]
    pub optional: bool,
}

/// Limits of a service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceResources {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<i64>,
}

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// It is being made or started for the first time.
    Starting,
    /// Its process runs.
    Running,
    /// It ended by itself, and is started again after a pause.
    Waiting,
    /// It ended, and is not started again.
    Stopped,
    /// It could not be made or started.
    Failed,
}

impl ServiceState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl std::fmt::Display for ServiceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A service as the host API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Directory name.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Its state.
    pub state: ServiceState,
    /// First process while it runs.
    pub pid: Option<i32>,
    /// How often it was restarted after it ended by itself.
    pub restarts: u32,
    /// When it entered this state: RFC 3339.
    pub since: String,
    /// Exit code of its last run.
    pub exit_code: Option<i32>,
    /// The last error.
    pub error: Option<String>,
}
