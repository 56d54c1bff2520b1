//! Containers of releases that kept them in a client's words only.

use std::path::Path;

use keelson_model::spec::{ContainerSpec, RootSpec};
use serde_json::Value;

use crate::EngineError;
use crate::host::HostFacts;

/// A container that was kept in a client's words only.
#[derive(Debug)]
pub struct OldDocument<'a> {
    /// Its identifier.
    pub id: &'a str,
    /// Its root file system, taken for writable.
    pub root: RootSpec,
    /// Its command and its arguments.
    pub command: (&'a str, &'a [String]),
    /// What runs in it, in a client's words.
    pub config: &'a Value,
    /// How it runs on this host, in a client's words.
    pub host_config: &'a Value,
    /// What the host offers.
    pub facts: &'a HostFacts,
    /// The engine's own directory.
    pub engine: &'a Path,
}

/// Reads a container that was kept in a client's words only. A parameter of the engine, because it
/// knows no client's words.
pub type ReadOld = fn(&OldDocument<'_>) -> Result<ContainerSpec, EngineError>;
