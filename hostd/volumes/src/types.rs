//! What the store takes and gives.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use keelson_lease::Lease;

use crate::name::ANONYMOUS;
use crate::options;

/// The driver that every host has.
pub const LOCAL: &str = "local";

/// What volume to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name; empty: one is made up.
    pub name: String,
    /// Its driver; empty: [`LOCAL`].
    pub driver: String,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels, which mean something to clients only.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// When it was made.
    pub created: Timestamp,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The directory that containers see, on the host.
    pub mountpoint: PathBuf,
    /// Why its document can't be read. Such a volume is listed, and can be removed by name only.
    pub unreadable: Option<String>,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }

    /// Whether its content is another file system's, which is mounted while containers use it.
    pub fn is_mount(&self) -> bool {
        options::wanted(&self.options).is_some()
    }
}

/// Keeps a volume from being removed. The holder is a container's identifier.
pub type VolumeLease = Lease<String, String>;

/// Something that happened to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeEvent {
    /// `create`, `mount`, `unmount`, `destroy` or `prune`.
    pub action: &'static str,
    /// The volume; empty for `prune`.
    pub name: String,
    /// Further facts.
    pub attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970.
    pub time: i64,
}

/// What a cleaning removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The names of the volumes.
    pub names: Vec<String>,
    /// Bytes that they took.
    pub bytes: u64,
}
