//! What the provisioning (`keelson-provision`) tells others: exit codes to init, and a status.

use serde::{Deserialize, Serialize};

use crate::format::DocumentFormat;

/// Directory of the files of the provisioning, which only root may read.
pub const DIRECTORY: &str = "/var/lib/keelson/host/platform";
/// The platform's layer of the configuration, in it.
pub const LAYER_FILE: &str = "host.toml";
/// The [`ProvisionStatus`], in it.
pub const STATUS_FILE: &str = "status.json";
/// The source's own documents, in it.
pub const SEED_FILE: &str = "seed.json";

/// Exit code of `keelson-provision local`: `keelson-provision network` shall run when the network is
/// up.
pub const EXIT_NETWORK_WANTED: i32 = 3;
/// Exit code of `keelson-provision network`: the layer is not what it was before.
pub const EXIT_CHANGED: i32 = 4;

/// How far the provisioning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionState {
    /// No source says anything about this machine.
    None,
    /// Something has to be read from the network.
    Pending,
    /// All was read, in this boot or an earlier one.
    Complete,
    /// A source is there and could not be read. The next boot tries again.
    Failed,
}

impl ProvisionState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }
}

/// `status.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionStatus {
    /// The format of the document.
    #[serde(flatten)]
    pub format: DocumentFormat,
    /// How far it is.
    pub state: ProvisionState,
    /// Source whose documents are in effect: `nocloud`, `ec2`, ….
    pub source: Option<String>,
    /// Its device or URL.
    pub place: Option<String>,
    /// Instance-id of these documents.
    pub instance_id: Option<String>,
    /// When this was written, RFC 3339.
    pub when: String,
    /// The settings that they make, by their paths in `host.toml`; entries of lists with their name.
    #[serde(default)]
    pub applied: Vec<String>,
    /// What was left out, each `document:line: message`.
    pub warnings: Vec<String>,
    /// Why sources could not be read, and the like.
    pub problems: Vec<String>,
}
