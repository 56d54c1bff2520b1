//! A client of container registries (OCI distribution specification 1.1, Docker Registry HTTP API
//! V2): manifests, blobs and uploads, over HTTPS or, where configured, plain HTTP.
//!
//! A registry is never trusted: its answers are limited in size and time, and checked against
//! digests from the reference or from documents that were checked before.
//!
//! - [`RegistryOptions`]: mirrors, insecure registries, certificates, proxies, deadlines.
//! - `auth_file`, [`auth`], `authorize`, `session`: credentials, challenges and tokens.
//! - `uri`, `address`, `own`: addresses, and which of them a registry may make us contact.
//! - `connect`, `tls`, `proxy`: connections.
//! - `asked`: requests. [`Client`]: requests with retries; [`Repository`]: the operations in one repository.
//! - `manifest`, `blob`, `body`: for pulls; `source`, `upload`: for pushes.
//! - `search`, `download`: Docker Hub's search, and files by URL.
//! - [`RegistryError`]: why a request failed.

mod address;
mod asked;
pub mod auth;
mod auth_file;
mod authorize;
mod blob;
mod body;
mod client;
mod connect;
mod download;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod manifest;
mod options;
mod own;
mod proxy;
mod repository;
mod search;
mod session;
mod source;
mod tls;
mod upload;
mod uri;

pub use asked::Asked;
pub use auth::Credentials;
pub use blob::BlobReader;
pub use client::Client;
pub use download::{Download, DownloadError};
pub use error::{Missing, RegistryError, SettingError};
pub use manifest::Manifest;
pub use options::{Deadlines, HostRule, Mirror, RegistryOptions};
pub use proxy::Proxies;
pub use repository::{Repository, RepositoryAccess};
pub use search::SearchResult;
pub use source::BlobSource;
