//! The control socket of PID 1 (`/run/keelson/init.sock`): one JSON request line, one JSON
//! answer line, then the connection ends.

use serde::{Deserialize, Serialize};

/// Where PID 1 listens. Only root may connect (mode 0600).
pub const CONTROL_SOCKET: &str = "/run/keelson/init.sock";

/// A request to PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Stop everything in order and end the machine.
    Power {
        /// How the machine ends.
        action: PowerAction,
    },
    /// Report the boot's steps and the supervised processes.
    Status,
}

/// How an orderly stop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Power off.
    Poweroff,
    /// Restart through the firmware.
    Reboot,
    /// Stop the processor without switching the power off.
    Halt,
}

/// PID 1's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Response {
    /// The request was accepted.
    Accepted,
    /// The answer to [`Request::Status`].
    Status(Status),
    /// The request was refused.
    Error {
        /// Why, in one sentence.
        message: String,
    },
}

/// The state of the machine as PID 1 sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the booted ostree deployment: `<commit>.<serial>`.
    pub deployment: Option<String>,
    /// Steps of the boot in the order in which they ended.
    pub boot: Vec<BootStep>,
    /// The supervised processes.
    pub processes: Vec<ProcessStatus>,
}

/// One step of the boot. Times are seconds since the kernel started (CLOCK_BOOTTIME).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BootStep {
    /// Short name: `stage1`, `mounts`, `modules`, `netcfg-ready`, `hostd-ready`, …
    pub name: String,
    /// When the step began.
    pub started: f64,
    /// When the step ended.
    pub ended: f64,
    /// What failed, when it failed and the boot went on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A process that PID 1 keeps running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// `netcfg` or `hostd`.
    pub name: String,
    /// `starting`, `ready`, `waiting` (to be started again), `stopping` or `stopped`.
    pub state: String,
    /// Process identifier while it runs.
    pub pid: Option<i32>,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// How it ended last, for example `killed by SIGKILL`.
    pub last_exit: Option<String>,
}
