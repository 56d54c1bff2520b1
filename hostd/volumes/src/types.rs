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
    /// The directory of volumes.
    pub base: PathBuf,
    /// The directory of the records of mounted plugins' volumes. A reboot empties it.
    pub uses: PathBuf,
    /// Identifies the current boot of the kernel.
    pub boot: String,
    /// Whether documents are written in the format of the previous release.
    pub era: Era,
    /// The directories that are searched for plugins.
    pub plugins: Vec<PathBuf>,
}

/// The scope in which a name means the same volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// On this host.
    #[default]
    Local,
    /// On every host that has the plugin.
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

/// A volume to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name; empty: a name is generated.
    pub name: String,
    /// Its driver: [`LOCAL`] or a plugin. Empty: the driver that has a volume of that name, or
    /// [`LOCAL`].
    pub driver: String,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels, which only clients interpret.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// When it was created.
    pub created: Timestamp,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The path on the host of the directory that containers see. For a plugin's volume it is empty
    /// until the plugin returns it.
    pub mountpoint: PathBuf,
    /// The scope of the name.
    pub reach: Reach,
    /// Its plugin's information: a JSON object as text.
    pub status: Option<Box<str>>,
    /// Why its document can't be read. Such a volume is listed, and can only be removed by name.
    pub unreadable: Option<String>,
}

impl Volume {
    /// Whether it is anonymous.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }

    /// Whether it belongs to this host's own driver, not to a plugin.
    pub fn is_local(&self) -> bool {
        self.driver == LOCAL
    }

    /// Whether a prune may remove it: it is on this host's disk, and it is known.
    pub fn is_prunable(&self) -> bool {
        self.is_local() && self.options.is_empty() && self.unreadable.is_none()
    }

    /// Whether its content is in another file system, which is mounted while containers use it.
    pub fn is_mount(&self) -> bool {
        !self.is_local() || options::wanted(&self.options).is_some()
    }
}

/// Keeps a volume from being removed. The holder is a container's identifier.
pub type VolumeLease = Lease<String, String>;

/// An event of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeEvent {
    /// What happened.
    pub action: VolumeAction,
    /// The volume; empty for a prune.
    pub name: String,
    /// Its driver; empty for a prune.
    pub driver: String,
    /// Nanoseconds since 1970.
    pub time: i64,
}

/// What happened to a volume. Containers are named by their identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeAction {
    /// It was created.
    Create,
    /// A container that starts has it.
    Mount {
        /// The container.
        container: String,
        /// Where it is in the container.
        destination: String,
        /// Whether the container may write.
        writable: bool,
        /// The propagation of its mount; empty for the usual one.
        propagation: String,
    },
    /// A container has it no longer.
    Unmount {
        /// The container.
        container: String,
    },
    /// It is gone.
    Destroy,
    /// Unused volumes were removed.
    Prune {
        /// Freed bytes of disk.
        reclaimed: u64,
    },
}

/// The result of a prune.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    /// The names of the volumes.
    pub names: Vec<String>,
    /// The freed bytes.
    pub bytes: u64,
}
