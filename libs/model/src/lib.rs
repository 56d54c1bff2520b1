//! The serde types that Keelson's processes share: what stands in files, on sockets and in the
//! configuration. No behaviour beyond construction and parsing of single values lives here, apart
//! from the one way in which documents from outside are read ([`json`]).

pub mod error;
pub mod host;
pub mod host_api;
pub mod init;
pub mod ip;
pub mod json;
pub mod limits;
pub mod service;
pub mod spec;
pub mod verify;
