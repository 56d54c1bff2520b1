//! Reads containers that an older engine stored in Docker's words, before there was a specification.

use hostd_containers::{EngineError, HostFacts, OldDocument};
use keelson_model::spec::ContainerSpec;
use serde::Deserialize;

use super::Ground;
use super::spec::{Words, spec};
use crate::offers::Runtimes;
use crate::wire::{Config, HostConfig, NetworkingConfig};

/// Reads a stored container. It was completed and checked when it was made. What the host offers now
/// is checked at its next start.
///
/// # Errors
/// [`EngineError::Invalid`], naming what does not fit.
pub fn read_old(old: &OldDocument<'_>) -> Result<ContainerSpec, EngineError> {
    let unfit = |part: &str, error: &dyn std::fmt::Display| {
        EngineError::Invalid(format!("what clients are shown of it: {part}{error}"))
    };
    let config = Config::deserialize(old.config).map_err(|error| unfit("config: ", &error))?;
    let host =
        HostConfig::deserialize(old.host_config).map_err(|error| unfit("host_config: ", &error))?;
    let (command, args) = old.command;
    let words = Words {
        config: &config,
        host: &host,
        networking: &NetworkingConfig::default(),
        command,
        args,
    };
    let facts = HostFacts {
        capabilities: u64::MAX,
        ..old.facts.clone()
    };
    let ground = Ground {
        facts: &facts,
        engine: old.engine,
        // The host name stands in the configuration.
        machine: "",
        // It has passed.
        runtimes: &Runtimes::default(),
        default_network: "",
        init: false,
        // Those releases had none.
        users: None,
    };
    let mut spec =
        spec(old.id, &words, old.root.clone(), ground).map_err(|error| unfit("", &error))?;
    // They are in the container's own files.
    let volumes = std::mem::take(&mut spec.volumes).into_iter();
    spec.anonymous_volumes = volumes.map(|volume| volume.target).collect();
    Ok(spec)
}
