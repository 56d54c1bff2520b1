//! Turns a client's request into the [`ContainerSpec`] that the engine keeps and runs, or into an error
//! that names the field. The image and Docker's defaults complete the request first. Docker's rules and
//! words are here. The engine checks what must hold for every container
//! ([`hostd_containers::check`]). Pure: no I/O.
//!
//! * [`complete`]: adds what the client left out, from the image and Docker's defaults.
//! * [`refuse`], [`size`]: refuse options that are not built, and requests that are too large.
//! * [`spec`]: the completed request in the engine's terms, by its parts: [`block_io`],
//!   [`capabilities`], [`devices`], [`health`], [`images`], [`limits`], [`log`], [`mounts`],
//!   [`names`], [`order`], [`ports`], [`seccomp`], [`security`], [`volumes`].
//! * [`connections`], [`endpoints`]: the networks of a new container, and one connection to a
//!   network, also of an existing container.
//! * [`update`]: `POST /containers/{id}/update`.
//! * [`shown`]: the request as clients see it in `inspect`.
//! * [`old`]: reads containers of an engine that did not have the specification yet.

mod block_io;
mod capabilities;
mod complete;
mod connections;
mod devices;
mod discard;
pub(crate) mod endpoints;
mod health;
mod images;
mod limits;
mod log;
pub(crate) mod mounts;
mod names;
pub(crate) mod namespaces;
mod old;
mod order;
mod ports;
mod refuse;
mod seccomp;
mod security;
pub(crate) mod shown;
mod size;
mod spec;
mod update;
mod volumes;

use std::path::Path;

use hostd_containers::{HostFacts, Shown, check, check_host};
use hostd_images::ContainerDefaults;
use keelson_model::spec::{ContainerSpec, RootSpec};
use keelson_model::users::UserRange;

use crate::error::ApiError;
use crate::offers::Runtimes;
use crate::wire::CreateBody;

pub(crate) use discard::discard;
pub use old::read_old;
pub(crate) use update::{update, without_link};

fn invalid<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::invalid(message))
}

/// Facts about the host that decide what a container may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// What the host offers.
    pub(crate) facts: &'a HostFacts,
    /// The engine's own directory.
    pub(crate) engine: &'a Path,
    /// The machine's host name.
    pub(crate) machine: &'a str,
    /// The runtimes that a container may ask for.
    pub(crate) runtimes: &'a Runtimes,
    /// The default network of containers.
    pub(crate) default_network: &'a str,
    /// Whether containers get a small init by default.
    pub(crate) init: bool,
    /// The default user range of containers.
    pub(crate) users: Option<UserRange>,
}

/// A request that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Understood {
    /// The request to the engine.
    pub(crate) spec: ContainerSpec,
    /// The request as clients see it later.
    pub(crate) shown: Shown,
    /// Warnings for the client, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Completes and checks a request for a container that gets the identifier `id`.
///
/// # Errors
/// `InvalidInput` or `NotImplemented`, naming the field and its value.
pub(crate) fn understand(
    id: &str,
    body: CreateBody,
    root: RootSpec,
    image: Option<&ContainerDefaults>,
    ground: Ground<'_>,
) -> Result<Understood, ApiError> {
    let completed = complete::complete(id, body, image, ground)?;
    let spec = spec::spec(id, &completed.words(), root, ground)?;
    limits::check_processors(&completed.host, ground.facts)?;
    check(&spec, ground.engine)?;
    check_host(&spec, ground.facts)?;
    Ok(Understood {
        spec,
        shown: shown::shown(&completed.config, &completed.host)?,
        warnings: completed.warnings,
    })
}

#[cfg(test)]
mod tests;
