//! The volume store: directories that outlive containers.
//!
//! A [`VolumeStore`] keeps a directory per volume: its document, and `_data`, which containers see.
//! A volume is held by leases from the creation of a container to its removal, and is *used* from
//! the container's start to its end. The mount that a volume's options ask for is made for the
//! first use and removed after the last.
//!
//! - `types`, `error`: the types of the interface, and its errors.
//! - `store`: all volumes in memory; `making`, `removing`: change them; `looking`: queries plugins.
//! - `usage`: the volumes of running containers, and the filling of new ones.
//! - `mounted`: mounts and unmounts for this host's own driver.
//! - `ledger`: records what plugins have mounted for which containers.
//! - `plugins`: programs that keep volumes elsewhere.
//! - `options`: the mount options of the driver `local`; `unfit`: why one can't be used.
//! - `name`: the valid names; `names`: one operation at a time for each name; `lock`: locks.
//! - `document`: the document of a volume on disk.

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
    LOCAL, NewVolume, PrunedVolumes, Reach, StoreOptions, Volume, VolumeAction, VolumeEvent,
    VolumeLease,
};
pub use unfit::Unfit;
pub use usage::VolumeUse;
