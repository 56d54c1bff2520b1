//! System services that run as containers.
//!
//! A service lies in a folder `<name>/` with `service.toml` and `rootfs.erofs`, both part of the
//! OS. [`plan`] says, purely, in which order services start and which cannot; [`request`] what
//! container a service becomes; the supervisor makes it so, keeps those that run across a
//! restart of hostd, and replaces those whose files have changed. A broken service is reported
//! and never in the way of the others.

mod load;
pub mod plan;
pub mod request;
mod supervise;

pub use supervise::{Services, ServicesOptions};
