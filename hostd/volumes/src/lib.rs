//! The volume store: directories that outlive containers.
//!
//! A [`VolumeStore`] keeps a directory per volume: its document, and `_data`, which containers see.
//! A volume is held by leases from the creation of a container to its removal, and is *used* from
//! the container's start to its end. What a volume's options ask for is mounted for the first use
//! and unmounted after the last.
//!
//! - `store`: creating, finding, holding, removing.
//! - `usage`: the volumes of containers that run, and filling new ones.
//! - `mounted`: mounting, unmounting, and counting bytes.
//! - `options`: what the driver `local` can mount.
//! - `name`: which names there are.
//! - `document`: what is kept of a volume on disk.
//! - `types`: what the store takes and gives.

mod document;
mod error;
mod mounted;
mod name;
mod options;
mod store;
mod types;
mod usage;

pub use error::VolumeError;
pub use name::{ANONYMOUS, check, generate};
pub use store::VolumeStore;
pub use types::{LOCAL, NewVolume, Pruned, Volume, VolumeEvent, VolumeLease};
pub use usage::VolumeUse;
