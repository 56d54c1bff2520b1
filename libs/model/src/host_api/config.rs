//! The messages about the host configuration (`/host/v1/config`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer to `GET /host/v1/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// Every value that counts, built-in ones included. Secrets are replaced by `(hidden)`.
    pub config: serde_json::Value,
    /// Where each value came from, by its path.
    pub origins: BTreeMap<String, ConfigOrigin>,
    /// The files that were merged, lowest first.
    pub layers: Vec<String>,
    /// What is wrong with files, and warnings.
    pub problems: Vec<ConfigProblem>,
    /// What else a person should know, one sentence each.
    pub notices: Vec<String>,
    /// The change that waits for its confirmation.
    pub waiting: Option<ConfigWaiting>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigOrigin {
    /// `built-in`, `image`, `command-line`, `platform`, `operator` or `last-good`.
    pub layer: String,
    /// The file; absent for built-in values.
    pub file: Option<String>,
    /// The line in the file, counted from 1.
    pub line: Option<u64>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: Option<u64>,
    /// The column in characters, counted from 1.
    pub column: Option<u64>,
    /// Path of the field; empty when no field is concerned.
    pub field: String,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What would be right, one sentence without a full stop.
    pub remedy: String,
    /// Whether the file counts all the same.
    pub warning: bool,
}

/// A change that waits for its confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigWaiting {
    /// The file that was changed.
    pub file: String,
    /// Seconds until it is taken back.
    pub seconds_left: u64,
}

/// The body of `POST /host/v1/config/validate` and `/diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigProposal {
    /// The whole text of the file.
    pub text: String,
    /// Name of a file of `host.toml.d`, without `.toml`; absent: `host.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_in: Option<String>,
}

/// The answer to `POST /host/v1/config/validate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigValidated {
    /// Empty if the text can be applied.
    pub problems: Vec<ConfigProblem>,
}

/// A value that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// Its path.
    pub field: String,
    /// The value before, as TOML; `(hidden)` for secrets.
    pub before: Option<String>,
    /// The value after.
    pub after: Option<String>,
    /// When it works: `now`, `restart` (of hostd) or `boot`.
    pub effect: String,
    /// Whether it can lock the operator out.
    pub can_lock_out: bool,
}

/// The answer to `POST /host/v1/config/diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDiff {
    /// The values that would change.
    pub changes: Vec<ConfigChange>,
}

/// The body of `POST /host/v1/config/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigApply {
    /// The whole text of the file.
    pub text: String,
    /// Name of a file of `host.toml.d`, without `.toml`; absent: `host.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_in: Option<String>,
    /// Seconds in which the change must be confirmed; 0: it need not be. Absent: 120 if it can lock
    /// the operator out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<u32>,
    /// Restart hostd if the change needs it. Containers go on.
    #[serde(default)]
    pub restart: bool,
}

/// The answer to `POST /host/v1/config/apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigApplied {
    /// The values that changed.
    pub changes: Vec<ConfigChange>,
    /// Seconds until it is taken back, if it waits for a confirmation.
    pub confirm_within: Option<u32>,
    /// Whether hostd restarts now.
    pub restarting: bool,
    /// What did not work, one sentence each.
    pub notes: Vec<String>,
}

/// The answer to `POST /host/v1/config/confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigConfirmed {
    /// The file whose change stays.
    pub file: String,
}

/// The answer to `POST /host/v1/config/rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigTakenBack {
    /// The file that is as before.
    pub file: String,
    /// The values that are different now.
    pub changes: Vec<ConfigChange>,
    /// Whether hostd restarts now.
    pub restarting: bool,
    /// What did not work, one sentence each.
    pub notes: Vec<String>,
}
