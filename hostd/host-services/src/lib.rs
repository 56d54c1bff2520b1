//! System services that run as containers.
//!
//! The OS has one directory per service, `<name>/`, with `service.toml` and `rootfs.erofs`. A broken
//! service is reported and does not stop the others. In the order in which a service passes through:
//!
//! - `load`: reads the directories.
//! - [`plan`]: in which order services start, and which cannot. Pure.
//! - [`request`]: the container that a service becomes. Pure.
//! - `supervise`: makes and starts the containers. It keeps those that run across a restart of
//!   hostd, and replaces those whose files have changed.

mod load;
pub mod plan;
pub mod request;
mod supervise;

pub use supervise::{Services, ServicesOptions};
