//! Where a seed may come from. Each source looks at the machine and says nothing, gives a seed, or
//! asks to be called again when the network is up.

mod azure;
mod config_drive;
mod ec2;
mod firmware;
mod gce;
mod nocloud;
mod openstack;
mod url;

use crate::disk::{DiskError, Volumes};
use crate::fetch::{FetchError, Fetcher};
use crate::machine::{Cloud, HostMachine, HostPlatform};
use crate::nocloud::LineError;
use crate::seed::Seed;

/// What a source may use.
pub struct Context<'a> {
    /// The machine.
    pub machine: &'a HostMachine,
    /// Its disks.
    pub disks: &'a dyn Volumes,
    /// The network, once it is up.
    pub network: Option<&'a Fetcher>,
}

/// What a source says.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// It does not concern this machine.
    Nothing,
    /// A seed, and what the operator should know about it.
    Seed(Box<Seed>, Vec<String>),
    /// It concerns this machine, and needs the network.
    Later,
}

/// Why a source that concerns this machine can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The network.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A line `ds=`.
    #[error("{place}: {source}")]
    Line {
        /// Where it stands.
        place: &'static str,
        /// What is wrong.
        source: LineError,
    },
    /// A document.
    #[error("{place}: {reason}")]
    Document {
        /// Which one.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// QEMU's firmware configuration.
    #[error("fw_cfg {name}: {source}")]
    Firmware {
        /// The file.
        name: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// EC2 without tokens.
    #[error("the metadata service gives no token (it is disabled?): {0}")]
    Token(FetchError),
}

impl SourceError {
    fn document(place: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Document {
            place: place.into(),
            reason: reason.to_string(),
        }
    }
}

/// One place that seeds come from.
pub trait Source {
    /// Its name in the status.
    fn name(&self) -> &'static str;

    /// Looks.
    ///
    /// # Errors
    /// [`SourceError`]: it concerns this machine, and can't be read.
    fn read(&self, context: &Context<'_>) -> Result<Finding, SourceError>;

    /// Tells the platform that the machine is provisioned, where that is expected.
    ///
    /// # Errors
    /// [`SourceError`].
    fn report(&self, _network: &Fetcher) -> Result<(), SourceError> {
        Ok(())
    }
}

/// The sources that concern a platform, the first that says something wins.
#[must_use]
pub fn of(platform: HostPlatform) -> Vec<Box<dyn Source>> {
    if platform == HostPlatform::Off {
        return Vec::new();
    }
    let mut sources: Vec<Box<dyn Source>> = vec![
        Box::new(firmware::Firmware),
        Box::new(nocloud::NoCloud),
        Box::new(url::Url),
        Box::new(config_drive::ConfigDrive),
    ];
    // Asking 169.254.169.254 on a machine that is in no cloud costs minutes, and trusts strangers.
    match platform {
        HostPlatform::Off | HostPlatform::Local => {}
        HostPlatform::Cloud(Cloud::Ec2) => sources.push(Box::new(ec2::Ec2)),
        HostPlatform::Cloud(Cloud::OpenStack) => sources.push(Box::new(openstack::OpenStack)),
        HostPlatform::Cloud(Cloud::Gce) => sources.push(Box::new(gce::Gce)),
        HostPlatform::Cloud(Cloud::Azure) => sources.push(Box::new(azure::Azure)),
    }
    sources
}

/// Whether a source of this name is a cloud's metadata service.
#[must_use]
pub fn is_cloud(name: &str) -> bool {
    [Cloud::Ec2, Cloud::OpenStack, Cloud::Gce, Cloud::Azure]
        .iter()
        .any(|cloud| {
            of(HostPlatform::Cloud(*cloud))
                .last()
                .is_some_and(|last| last.name() == name)
        })
}
