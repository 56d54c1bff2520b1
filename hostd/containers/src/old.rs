//! Containers of releases that stored them only in a client's words.

use std::path::Path;

use keelson_model::spec::{ContainerSpec, RootSpec};
use serde_json::Value;

use crate::EngineError;
use crate::host::HostFacts;

/// A container that was stored only in a client's words.
#[derive(Debug)]
pub struct OldDocument<'a> {
    /// Its identifier.
    pub id: &'a str,
    /// Its root file system, which is assumed to be writable.
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

/// Reads a container that was stored only in a client's words. It is a parameter of the engine,
/// which does not know them.
pub type ReadOld = fn(&OldDocument<'_>) -> Result<ContainerSpec, EngineError>;
