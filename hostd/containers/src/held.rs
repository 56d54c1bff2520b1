//! The volumes and images that a container holds, except its own image.

use hostd_images::{ImageLease, RootfsLayers};
use hostd_volumes::{VolumeLease, VolumeUse};

/// A container's leases on its volumes and on the images that are mounted in it.
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
