//! The types of the store's interface.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use keelson_lease::Lease;
use keelson_store::Era;

use crate::name::ANONYMOUS;
use crate::options;

/// The driver that every host has.
pub const LOCAL: &str = "local";

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where volumes are kept.
    pub base: PathBuf,
    /// Where it is kept which plugins' volumes are mounted; gone with the boot.
    pub uses: PathBuf,
    /// Identifies the running boot of the kernel.
    pub boot: String,
    /// Whether documents are written as the release before wrote them.
    pub era: Era,
    /// Where plugins are looked for.
    pub plugins: Vec<PathBuf>,
}

/// Where a volume is the same one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// On this host.
    #[default]
    Local,
    /// On every host that has its plugin.
    Global,
}

impl Reach {
    /// `local` or `global`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

/// What volume to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name; empty: one is made up.
    pub name: String,
    /// Its driver: [`LOCAL`] or a plugin. Empty: the driver that has a volume of that name, or
    /// [`LOCAL`].
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
    /// The directory that containers see, on the host. Of a plugin's volume it is empty as long as the
    /// plugin does not say it.
    pub mountpoint: PathBuf,
    /// Where it is the same volume.
    pub reach: Reach,
    /// What its plugin says of it: a JSON object as text.
    pub status: Option<Box<str>>,
    /// Why its document can't be read. Such a volume is listed, and can be removed by name only.
    pub unreadable: Option<String>,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }

    /// Whether it is kept by this host's own driver, not by a plugin.
    pub fn is_local(&self) -> bool {
        self.driver == LOCAL
    }

    /// Whether a prune may remove it: it is on this host's disk, and it is known.
    pub fn is_prunable(&self) -> bool {
        self.is_local() && self.options.is_empty() && self.unreadable.is_none()
    }

    /// Whether its content is another file system's, which is mounted while containers use it.
    pub fn is_mount(&self) -> bool {
        !self.is_local() || options::wanted(&self.options).is_some()
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

/// The result of a prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    /// The names of the volumes.
    pub names: Vec<String>,
    /// Bytes that they took.
    pub bytes: u64,
}
