//! Containers that an engine of before the specification has kept, in Docker's words.

use hostd_containers::{HostFacts, OldDocument};
use keelson_model::spec::ContainerSpec;
use serde::Deserialize;

use super::Ground;
use super::spec::{Words, spec};
use crate::wire::{Config, HostConfig};

/// Reads what was kept of a container. That was completed and judged when it was made; what the
/// host offers now is asked at its next start.
///
/// # Errors
/// What does not fit, in one sentence.
pub fn read_old(old: &OldDocument<'_>) -> Result<ContainerSpec, String> {
    let config = Config::deserialize(old.config).map_err(|error| format!("config: {error}"))?;
    let host = HostConfig::deserialize(old.host_config)
        .map_err(|error| format!("host_config: {error}"))?;
    let (command, args) = old.command;
    let words = Words {
        config: &config,
        host: &host,
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
    };
    spec(old.id, &words, old.root.clone(), ground).map_err(|error| error.to_string())
}
