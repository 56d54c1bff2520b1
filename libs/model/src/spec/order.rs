//! The order in which restart policies start containers.

use serde::{Deserialize, Serialize};

use super::is_default;

/// The containers that are started before one, when restart policies start all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartOrder {
    /// The service that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_of: Option<Part>,
    /// Other services of the same group.
    #[serde(default, skip_serializing_if = "is_default")]
    pub after_services: Vec<String>,
    /// Those of them whose containers must be healthy, not only started.
    #[serde(default, skip_serializing_if = "is_default")]
    pub healthy_services: Vec<String>,
    /// Containers by identifier or name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub after: Vec<String>,
}

/// A service in a group (a Compose project). It may have several containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// The group.
    pub group: String,
    /// The service.
    pub service: String,
}
