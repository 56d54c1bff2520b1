//! The volume store: directories that outlive containers.
//!
//! A [`VolumeStore`] keeps a directory per volume: its document, and `_data`, which containers see.
//! A volume is held by leases from the creation of a container to its removal, and is *used* from
//! the container's start to its end. The mount that a volume's options ask for is made for the
//! first use and removed after the last.
//!
//! - `types`, `error`: the types of the interface, and its errors.
//! - `store`: all volumes in memory; `making`, `removing`: changing them; `looking`: asking plugins.
//! - `usage`: the volumes of containers that run, and filling new ones.
//! - `mounted`: mounting and unmounting for this host's own driver.
//! - `ledger`: what plugins have mounted for whom.
//! - `plugins`: programs that keep volumes elsewhere.
//! - `options`: the mount options of the driver `local`.
//! - `name`: which names there are; `names`: one at a time for each.
//! - `document`: the document of a volume on disk.
//! - `types`: the types of the interface.

mod document;
mod error;
mod ledger;
mod lock;
mod looking;
mod making;
mod mounted;
mod name;
mod names;
mod options;
mod plugins;
mod removing;
mod store;
mod types;
mod unfit;
mod usage;

pub use error::VolumeError;
pub use name::{ANONYMOUS, check_foreign, generate};
pub use plugins::{DescriptionError, PluginError};
pub use removing::Force;
pub use store::VolumeStore;
pub use types::{
    LOCAL, NewVolume, PrunedVolumes, Reach, StoreOptions, Volume, VolumeEvent, VolumeLease,
};
pub use unfit::Unfit;
pub use usage::VolumeUse;
