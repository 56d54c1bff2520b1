//! The JSON document of the provisioning. See `wire` for why it is a type of its own.

use keelson_model::provision as model;
use serde::Serialize;
use utoipa::ToSchema;

/// How far the provisioning is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProvisionState {
    /// No source says anything about this machine.
    None,
    /// Something has to be read from the network.
    Pending,
    /// All was read, in this boot or an earlier one.
    Complete,
    /// A source is there and could not be read. The next boot tries again.
    Failed,
}

impl From<model::ProvisionState> for ProvisionState {
    fn from(state: model::ProvisionState) -> Self {
        match state {
            model::ProvisionState::None => Self::None,
            model::ProvisionState::Pending => Self::Pending,
            model::ProvisionState::Complete => Self::Complete,
            model::ProvisionState::Failed => Self::Failed,
        }
    }
}

/// What the platform told this machine, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProvisionReport {
    /// How far it is.
    state: ProvisionState,
    /// The source whose documents are in effect: `nocloud`, `ec2`, …; null without one.
    source: Option<String>,
    /// Its device or URL.
    place: Option<String>,
    /// Instance-id of these documents.
    instance_id: Option<String>,
    /// When the sources were last asked (RFC 3339); null if they never were.
    when: Option<String>,
    /// The settings that the documents make, by their paths in `host.toml`.
    applied: Vec<String>,
    /// What was left out, each `document:line: message`.
    left_out: Vec<String>,
    /// Why sources could not be read, and the like.
    problems: Vec<String>,
}

impl ProvisionReport {
    /// Of a machine that was never provisioned.
    pub(crate) fn never() -> Self {
        Self {
            state: ProvisionState::None,
            source: None,
            place: None,
            instance_id: None,
            when: None,
            applied: Vec::new(),
            left_out: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl From<model::ProvisionStatus> for ProvisionReport {
    fn from(status: model::ProvisionStatus) -> Self {
        let model::ProvisionStatus {
            state,
            source,
            place,
            instance_id,
            when,
            applied,
            warnings,
            problems,
            // A matter of the file.
            format: _,
        } = status;
        Self {
            state: state.into(),
            source,
            place,
            instance_id,
            when: Some(when),
            applied,
            left_out: warnings,
            problems,
        }
    }
}
