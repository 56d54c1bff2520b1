//! The JSON documents about the host configuration.

use std::collections::BTreeMap;

use keelson_config::{LoadedConfig, Problem, ValueOrigin, change};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The configuration that counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigView {
    /// Every value that counts, built-in ones included. Secrets are replaced by `(hidden)`.
    #[schema(value_type = Object)]
    pub(crate) config: serde_json::Value,
    /// Where each value came from, by its path.
    pub(crate) origins: BTreeMap<String, ConfigOrigin>,
    /// The files that were merged, lowest first.
    pub(crate) layers: Vec<String>,
    /// What is wrong with files, and warnings.
    pub(crate) problems: Vec<ConfigProblem>,
    /// What else a person should know, one sentence each.
    pub(crate) notices: Vec<String>,
    /// The change that waits for its confirmation.
    pub(crate) waiting: Option<ConfigWaiting>,
}

/// Where a value came from.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigOrigin {
    /// `built-in`, `image`, `command-line`, `platform`, `operator` or `last-good`.
    pub(crate) layer: String,
    /// The file; absent for built-in values.
    pub(crate) file: Option<String>,
    /// The line in the file, counted from 1.
    pub(crate) line: Option<u64>,
}

/// What is wrong with a file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigProblem {
    /// The file.
    pub(crate) file: String,
    /// The line, counted from 1.
    pub(crate) line: Option<u64>,
    /// The column in characters, counted from 1.
    pub(crate) column: Option<u64>,
    /// Path of the field; empty when no field is concerned.
    pub(crate) field: String,
    /// What is wrong, one sentence without a full stop.
    pub(crate) message: String,
    /// What would be right, one sentence without a full stop.
    pub(crate) remedy: String,
    /// Whether the file counts all the same.
    pub(crate) warning: bool,
}

/// A change that waits for its confirmation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigWaiting {
    /// The file that was changed.
    pub(crate) file: String,
    /// Seconds until it is taken back.
    pub(crate) seconds_left: u64,
}

/// A new text for one of the operator's files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigProposal {
    /// The whole text of the file.
    pub(crate) text: String,
    /// Name of a file of `host.toml.d`, without `.toml`; absent: `host.toml`.
    #[serde(default)]
    pub(crate) drop_in: Option<String>,
}

/// What is wrong with a proposal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigValidated {
    /// Empty if the text can be applied.
    pub(crate) problems: Vec<ConfigProblem>,
}

/// A value that changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigChange {
    /// Its path.
    pub(crate) field: String,
    /// The value before, as TOML; `(hidden)` for secrets.
    pub(crate) before: Option<String>,
    /// The value after.
    pub(crate) after: Option<String>,
    /// When it works: `now`, `restart` (of hostd) or `boot`.
    pub(crate) effect: String,
    /// Whether it can lock the operator out.
    pub(crate) can_lock_out: bool,
}

/// What a proposal changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigDiff {
    /// The values that would change.
    pub(crate) changes: Vec<ConfigChange>,
}

/// A new text for one of the operator's files, and how it is applied.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigApply {
    /// The whole text of the file.
    pub(crate) text: String,
    /// Name of a file of `host.toml.d`, without `.toml`; absent: `host.toml`.
    #[serde(default)]
    pub(crate) drop_in: Option<String>,
    /// Seconds in which the change must be confirmed; 0: it need not be. Absent: 120 if it can lock
    /// the operator out.
    #[serde(default)]
    pub(crate) confirm_within: Option<u32>,
    /// Restart hostd if the change needs it. Containers go on.
    #[serde(default)]
    pub(crate) restart: bool,
}

/// A change that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigApplied {
    /// The values that changed.
    pub(crate) changes: Vec<ConfigChange>,
    /// Seconds until it is taken back, if it waits for a confirmation.
    pub(crate) confirm_within: Option<u32>,
    /// Whether hostd restarts now.
    pub(crate) restarting: bool,
    /// What did not work, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// A change that stays.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigConfirmed {
    /// The file whose change stays.
    pub(crate) file: String,
}

/// A change that was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigTakenBack {
    /// The file that is as before.
    pub(crate) file: String,
    /// The values that are different now.
    pub(crate) changes: Vec<ConfigChange>,
    /// Whether hostd restarts now.
    pub(crate) restarting: bool,
    /// What did not work, one sentence each.
    pub(crate) notes: Vec<String>,
}

impl ConfigView {
    pub(crate) fn new(loaded: &LoadedConfig, waiting: Option<change::Waiting>) -> Self {
        let table = keelson_config::masked(&loaded.complete());
        let origins = loaded.complete_origins().into_iter();
        Self {
            config: serde_json::to_value(table).unwrap_or_default(),
            origins: origins
                .map(|(path, origin)| (path, origin.into()))
                .collect(),
            layers: loaded
                .layers
                .iter()
                .map(|layer| layer.display().to_string())
                .collect(),
            problems: problems(loaded.problems.clone()),
            notices: loaded.notices.clone(),
            waiting: waiting.map(|waiting| ConfigWaiting {
                file: waiting.file.display().to_string(),
                seconds_left: waiting.left.as_secs(),
            }),
        }
    }
}

impl From<ValueOrigin> for ConfigOrigin {
    fn from(origin: ValueOrigin) -> Self {
        let ValueOrigin { layer, file, line } = origin;
        Self {
            layer: layer.as_str().to_owned(),
            file: file.map(|file| file.display().to_string()),
            line: line.map(|line| line as u64),
        }
    }
}

pub(crate) fn problems(problems: Vec<Problem>) -> Vec<ConfigProblem> {
    problems.into_iter().map(Into::into).collect()
}

impl From<Problem> for ConfigProblem {
    fn from(problem: Problem) -> Self {
        let Problem {
            file,
            line,
            column,
            field,
            message,
            remedy,
            warning,
            unknown_field: _,
        } = problem;
        Self {
            file: file.display().to_string(),
            line: line.map(|line| line as u64),
            column: column.map(|column| column as u64),
            field,
            message,
            remedy,
            warning,
        }
    }
}

pub(crate) fn changes(changes: Vec<change::ValueChange>) -> Vec<ConfigChange> {
    changes.into_iter().map(Into::into).collect()
}

impl From<change::ValueChange> for ConfigChange {
    fn from(change: change::ValueChange) -> Self {
        let change::ValueChange {
            field,
            before,
            after,
            effect,
            can_lock_out,
        } = change;
        Self {
            field,
            before: before.map(|value| value.to_string()),
            after: after.map(|value| value.to_string()),
            effect: effect.as_str().to_owned(),
            can_lock_out,
        }
    }
}
