//! The host API (`/host/v1/…`) and the machine's keys.

pub mod addresses;
mod api;
pub mod clients;
mod init;
pub mod pki;
pub mod provision;
pub mod role;
mod verifier;
mod verify;

pub use api::{Body, HostApi, HostFacts};
