//! The serde types that Keelson's processes share: the content of files and of the configuration,
//! and the messages on sockets. No behaviour beyond construction and parsing of single values lives
//! here, apart from the reader of documents from outside ([`json`]).
//!
//! - [`host`], [`ip`], [`mark`]: the host's configuration, addresses, marks of packets.
//! - [`init`]: the control socket of PID 1.
//! - [`provision`]: what the provisioning tells others.
//! - [`spec`], [`users`]: what a container is, in the engine's own terms.
//! - [`service`]: the file that describes a service of the host.
//! - [`host_api`], [`verify`], [`logs`]: the host API.
//! - [`error`]: kinds of errors, with their HTTP status and exit code.
//! - [`format`]: what a document says about its format.
//! - [`limits`], [`json`]: limits on input from outside, and the reader for JSON from outside.

pub mod error;
pub mod format;
pub mod host;
pub mod host_api;
pub mod init;
pub mod ip;
pub mod json;
pub mod limits;
pub mod logs;
pub mod mark;
pub mod provision;
pub mod service;
pub mod spec;
pub mod users;
pub mod verify;
