//! What is known of a service while the machine runs. What it is stands in the configuration
//! ([`ServiceConfig`](crate::host::ServiceConfig)).

use serde::{Deserialize, Serialize};

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
    /// It ends again and again soon after its start, or can't be started. It is tried again, ever more
    /// seldom.
    Failing,
    /// It ended, or somebody stopped it, and is not started again.
    Stopped,
    /// It can't be started as it is configured.
    Failed,
    /// The configuration switches it off.
    Disabled,
}

impl ServiceState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
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
    /// Its name in the configuration.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Its state.
    pub state: ServiceState,
    /// Whether the configuration switches it on.
    pub enabled: bool,
    /// The image as the configuration names it, or the layers of the OS.
    pub image: String,
    /// `starting`, `healthy` or `unhealthy`, if its health is checked and it runs.
    pub health: Option<String>,
    /// First process while it runs.
    pub pid: Option<i32>,
    /// How often it was started again after it ended by itself or did not start.
    pub restarts: u32,
    /// When it entered this state: RFC 3339.
    pub since: String,
    /// Exit code of its last run.
    pub exit_code: Option<i32>,
    /// The last error.
    pub error: Option<String>,
}

/// Lines of a service's output, at `GET /host/v1/services/{service}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLogLine {
    /// When it was written: RFC 3339.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub text: String,
}
