//! `/networks`: networks in Docker's words.
//!
//! - `show`: a network in Docker's JSON.
//! - `create`: creates a network; `remove`: removes one, or all unused ones.
//! - `connect`: connects and disconnects containers.

mod connect;
mod create;
mod remove;
mod show;

use hostd_containers::Snapshot;
use hostd_networks::Network;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::error::ApiError;
use crate::membership;
use crate::query::{Filters, Patterns};
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call};

pub(crate) use connect::{connect, disconnect};
pub(crate) use create::create;
pub(crate) use remove::{prune, remove};

/// Filters of the list.
const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

/// The only scope that networks of one machine have.
const SCOPE: &str = "local";

/// A client's filters for the list.
struct ListFilters<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    ids: Patterns,
    names: Patterns,
}

impl<'a> ListFilters<'a> {
    fn new(filters: &'a Filters) -> Result<Self, ApiError> {
        for kind in filters.values("type") {
            if !matches!(kind.as_str(), "builtin" | "custom") {
                return Err(ApiError::invalid(format!(
                    "invalid filter: 'type'='{kind}'"
                )));
            }
        }
        Ok(Self {
            filters,
            dangling: filters.flag("dangling")?,
            ids: Patterns::new(filters.values("id")),
            names: Patterns::new(filters.values("name")),
        })
    }

    /// Whether a network matches. `in_use`: whether containers are in it.
    fn fits(&self, network: &Network, in_use: impl FnOnce() -> bool) -> bool {
        let kind = match network.predefined {
            true => "builtin",
            false => "custom",
        };
        let filters = self.filters;
        filters.any("driver", |wanted| wanted == network.driver.as_str())
            && self.ids.fit(&network.id)
            && self.names.fit(&network.name)
            && filters.any("scope", |wanted| wanted == SCOPE)
            && filters.any("type", |wanted| wanted == kind)
            && filters.labels(|key| network.labels.get(key).map(String::as_str))
            // Networks that can't be removed count as in use.
            && self
                .dangling
                .is_none_or(|wanted| wanted != (network.predefined || in_use()))
    }
}

/// `GET /networks`.
pub(crate) async fn list(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call.query.filters(FILTERS)?;
    let wanted = ListFilters::new(&filters)?;
    let with_containers = call.version < ApiVersion::new(1, 28);
    let networks = api.0.engine.networks();
    let list: Vec<Value> = networks
        .list()
        .iter()
        .filter(|network| {
            let in_use = || !networks.endpoints_in(&network.id).is_empty();
            wanted.fits(network, in_use)
        })
        .map(|network| {
            let containers = with_containers.then(|| show::containers(api, network));
            show::network(network, containers.unwrap_or_default())
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &list))
}

/// `GET /networks/{id}`, by identifier, name, or the beginning of an identifier.
pub(crate) async fn inspect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    if let Some(text) = call.query.get("verbose") {
        // `verbose` has no effect: there are no Swarm services.
        check_flag(text)?;
    }
    let term = call.name.as_str();
    if call.query.get("scope").is_some_and(|scope| scope != SCOPE) {
        return Err(hostd_networks::NetworkError::NotFound(term.to_owned()).into());
    }
    let network = api.0.engine.networks().find(term)?;
    let containers = show::containers(api, &network);
    Ok(reply::json(
        StatusCode::OK,
        &show::network(&network, containers),
    ))
}

/// Checks a boolean by Go's rules.
fn check_flag(text: &str) -> Result<(), ApiError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "0" | "f" | "false" => Ok(()),
        _ => Err(ApiError::invalid(format!(
            "invalid value for verbose: {text}: use true or false"
        ))),
    }
}

/// Whether a container is connected to a network without addresses (`host` or `none`).
fn is_connected(container: &Snapshot, network: &str) -> bool {
    let plain = matches!(network, "host" | "none");
    plain && container.state.status.counts_as_running() && membership::mode(container) == network
}

#[cfg(test)]
mod tests;
