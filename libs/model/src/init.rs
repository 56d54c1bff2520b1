//! The control socket of PID 1 (`/run/keelson/init.sock`): one JSON request line, one JSON
//! answer line, then the connection ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where PID 1 listens. Only root may connect (mode 0600).
pub const CONTROL_SOCKET: &str = "/run/keelson/init.sock";

/// Environment variable of a supervised process whose standard error is read with priorities: a line
/// may begin with `<0>` to `<7>`, as sd-daemon(3) describes it.
pub const PRIORITIES_VARIABLE: &str = "KEELSON_PRIORITIES";

/// The variable in which PID 1 passes a process the longest time, in microseconds, between two
/// signs of life (`WATCHDOG=1` to the socket that `NOTIFY_SOCKET` names), as in
/// sd_watchdog_enabled(3).
pub const SIGN_OF_LIFE_VARIABLE: &str = "WATCHDOG_USEC";

/// The interval between signs of life, for the value of [`SIGN_OF_LIFE_VARIABLE`]: three in the
/// longest allowed time. `None` if nobody waits for signs of life.
#[must_use]
pub fn sign_of_life_interval(value: Option<&str>) -> Option<Duration> {
    let microseconds: u64 = value?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds.div_ceil(3)))
}

/// How long hostd may take to end at a machine stop. After that it is killed. The shares
/// [`USER_STOP_SHARE`] and [`SYSTEM_STOP_SHARE`] add up to less.
pub const HOSTD_STOP_LIMIT: Duration = Duration::from_secs(45);

/// The share of [`HOSTD_STOP_LIMIT`] for clients' containers. Then they are killed, whatever stop
/// time they ask for.
pub const USER_STOP_SHARE: Duration = Duration::from_secs(25);

/// The share of [`HOSTD_STOP_LIMIT`] for all system services together.
pub const SYSTEM_STOP_SHARE: Duration = Duration::from_secs(10);

/// A request to PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Stop everything in order and end the machine.
    Power {
        /// How the machine ends.
        action: PowerAction,
        /// Kill everything at once instead of stopping it; file systems are still unmounted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Report the boot's steps and the supervised processes.
    Status,
    /// Give the machine a new identity at its next start: machine-id, keys, certificate authority.
    ResetIdentity,
}

/// How an orderly stop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    /// Power off.
    Poweroff,
    /// Restart through the firmware.
    Reboot,
    /// Start the kernel of the running deployment again, without the firmware.
    Kexec,
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
    Status(InitStatus),
    /// The request was refused.
    Error {
        /// Why, in one sentence.
        message: String,
    },
}

/// The state of the machine as PID 1 sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitStatus {
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
    /// The error, if the step failed and the boot continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of a process of PID 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It runs and has not said that it is ready.
    Starting,
    /// It does its work.
    Ready,
    /// It sends no signs of life.
    Hung,
    /// It ended by itself, and is started again after a pause.
    Waiting,
    /// It was asked to end.
    Stopping,
    /// It has ended for good.
    Stopped,
}

impl ProcessState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Hung => "hung",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for ProcessState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process that PID 1 keeps running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// `netcfg` or `hostd`.
    pub name: String,
    /// Its state.
    pub state: ProcessState,
    /// Process identifier while it runs.
    pub pid: Option<i32>,
    /// How often it was restarted after it ended by itself.
    pub restarts: u32,
    /// How it ended last, for example `killed by SIGKILL`.
    pub last_exit: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_are_asked_for_in_microseconds() {
        let of = |text| sign_of_life_interval(Some(text));
        assert_eq!(of("60000000"), Some(Duration::from_secs(20)));
        assert_eq!(of("0"), None);
        assert_eq!(of("soon"), None);
        assert_eq!(sign_of_life_interval(None), None);
    }

    #[test]
    fn the_shares_of_a_stop_leave_time_for_the_rest() {
        // Time for two kills, and for recording the ends.
        let rest = HOSTD_STOP_LIMIT - USER_STOP_SHARE - SYSTEM_STOP_SHARE;
        assert!(rest >= Duration::from_secs(10));
    }
}
