//! The host API (`/host/v1/…`) and the machine's keys.
//!
//! The API: [`routes`] is the table, [`HostApi`] finds a request's route in it, `api` and `verify`
//! have the handlers, `wire` the documents, [`openapi`] describes all of it, `init` talks to PID 1. The keys: [`pki`] is the certificate authority,
//! [`clients`] the certificates that it issued, `verifier` lets their bearers in, [`caller`] says who
//! they are, [`provision`] makes the first one, [`addresses`] names the server.

pub mod addresses;
mod api;
pub mod caller;
pub mod clients;
mod init;
pub mod openapi;
pub mod pki;
pub mod provision;
pub mod routes;
mod verifier;
mod verify;
mod wire;

pub use api::{HostApi, HostFacts, Routed};
