//! Control groups, version 2 only (`Documentation/admin-guide/cgroup-v2.rst` of the kernel).
//!
//! In the order in which a caller needs them:
//!
//! - [`mount_point`]: where the hierarchy is mounted.
//! - [`controllers`]: which controllers there are, and how the cgroups below get them.
//! - [`Cgroup`]: one cgroup: create, open, add processes, give it to a user, freeze, kill.
//! - [`Event`] and [`wait`]: wait until a cgroup is empty or frozen, without asking repeatedly.
//! - [`Figures`] and [`figures`]: its resource usage.
//! - [`remove`]: kill what is left and remove the cgroup with those below it.
//! - [`CgroupError`]: what was tried, with which file, and why it failed.

pub mod controllers;
mod error;
mod event;
pub mod figures;
mod group;
mod hierarchy;
mod measure;
mod remove;

pub use error::CgroupError;
pub use event::{Event, wait};
pub use group::{Cgroup, processes};
pub use hierarchy::{USUAL_MOUNT_POINT, mount_point};
pub use measure::Figures;
pub use remove::{remove, remove_when_empty};
