//! The volumes and images that a container holds, but for the one that it is made from.

use hostd_images::{ImageLease, RootfsLayers};
use hostd_volumes::{VolumeLease, VolumeUse};

/// What a container has of its volumes and of the images that are mounted in it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Keep them from being removed.
    pub(crate) leases: Vec<VolumeLease>,
    /// While it runs.
    pub(crate) uses: Vec<VolumeUse>,
    /// Keep images from being removed.
    pub(crate) images: Vec<ImageLease>,
    /// The layers of images, while it is prepared and runs.
    pub(crate) layers: Vec<RootfsLayers>,
    /// Whether the anonymous ones go with it.
    pub(crate) remove: bool,
}
