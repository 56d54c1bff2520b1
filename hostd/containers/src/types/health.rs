//! The health of a container.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The health status of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// No check has decided yet.
    #[default]
    Starting,
    /// The last check succeeded, or too few have failed in a row since.
    Healthy,
    /// Too many checks have failed in a row, or the container can't be checked.
    Unhealthy,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it began.
    pub start: Timestamp,
    /// When it had ended.
    pub end: Timestamp,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// The first bytes of the command's output, or why it was not executed.
    pub output: String,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum CheckOutcome {
    /// Its command ended with this exit code.
    Exited {
        /// Exit code; 0 is healthy.
        code: i32,
    },
    /// Its command took too long and was killed.
    TimedOut,
    /// Its command was not executed.
    NotExecuted,
}

/// The health of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its status.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub log: VecDeque<CheckResult>,
}
