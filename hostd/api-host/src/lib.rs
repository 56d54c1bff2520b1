//! The host API (`/host/v1/…`) and the machine's certificate authority.
//!
//! A request, in the order in which the modules see it:
//!
//! - [`caller`]: the caller and the role of a client certificate.
//! - `dispatch`: finds the route, checks the role, calls the handler.
//! - [`routes`]: the table of routes, and the handler of `openapi.json`.
//! - `api`, `config`, `logs`, `services`, `time`, `verify`: the other handlers.
//! - `state`: the data for the handlers.
//! - `init`: questions to PID 1.
//! - [`configuration`]: changes of the host configuration, one at a time.
//! - [`definitions`]: services as the configuration describes them.
//! - `wire`, `wire_config`, `wire_logs`, `wire_provision`, `wire_time`: the JSON documents.
//! - [`openapi`]: describes routes and documents as OpenAPI 3.1.
//!
//! The machine's keys:
//!
//! - [`pki`]: the certificate authority, and the server's certificate.
//! - [`addresses`]: the names and addresses in the server's certificate.
//! - [`clients`]: the client certificates that were issued or revoked.
//! - `verifier`: which client certificates pass a TLS handshake.
//! - [`provision`]: issues the first client certificate.
//! - `pki_error`: errors of the keys and certificates.

pub mod addresses;
mod api;
pub mod caller;
pub mod clients;
mod config;
pub mod configuration;
pub mod definitions;
mod dispatch;
mod init;
mod logs;
pub mod openapi;
pub mod pki;
mod pki_error;
pub mod provision;
pub mod routes;
mod services;
mod state;
mod time;
mod verifier;
mod verify;
mod wire;
mod wire_config;
mod wire_logs;
mod wire_provision;
mod wire_time;

pub use dispatch::RoutedHostRequest;
pub use pki_error::PkiError;
pub use state::{Answer, Handler, HostApi, HostSources};
