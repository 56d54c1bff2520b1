//! The volumes and images that a container holds, except its own image.

use hostd_images::{ImageLease, RootfsLayers};
use hostd_volumes::{VolumeLease, VolumeUse};

/// A container's leases on its volumes and on the images that are mounted in it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Leases that keep volumes from being removed.
    pub(crate) leases: Vec<VolumeLease>,
    /// Uses of volumes, while it runs.
    pub(crate) uses: Vec<VolumeUse>,
    /// Leases that keep images from being removed.
    pub(crate) images: Vec<ImageLease>,
    /// The mounted layers of images, while it starts and runs.
    pub(crate) layers: Vec<RootfsLayers>,
    /// Whether its anonymous volumes are removed with it.
    pub(crate) remove: bool,
}
