//! The volumes that a container holds.

use hostd_volumes::{VolumeLease, VolumeUse};

/// What a container has of its volumes.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Keep them from being removed.
    pub(crate) leases: Vec<VolumeLease>,
    /// While it runs.
    pub(crate) uses: Vec<VolumeUse>,
    /// Whether the anonymous ones go with it.
    pub(crate) remove: bool,
}
