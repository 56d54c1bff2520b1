//! Links on the default bridge network: what a container learns about another one from its
//! environment and its /etc/hosts. In other networks a link is only a name.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use keelson_model::spec::{ContainerLink, Port};

use crate::connected::{DEFAULT, connections};
use crate::document::ContainerDocument;
use crate::engine::{Inner, require_readable};
use crate::types::{Scope, Shown, Snapshot};
use crate::{Engine, EngineError};

/// The target of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    alias: String,
    name: String,
    host_name: String,
    address: Ipv4Addr,
    ports: BTreeSet<Port>,
    environment: Vec<String>,
}

impl Engine {
    /// Removes a link of a container in the default network by its alias, at once from the file of a
    /// running one. `shown` gets the container as it is, and returns what clients are shown afterwards.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`] when it has no such link, or the error of `shown`.
    pub async fn unlink<E: From<EngineError> + Send + 'static>(
        &self,
        scope: Scope,
        name: &str,
        alias: &str,
        shown: impl FnOnce(&Snapshot) -> Result<Option<Shown>, E> + Send + 'static,
    ) -> Result<(), E> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        let alias = alias.to_owned();
        let work = async move {
            let _guard = container.lock().await?;
            require_readable(&container)?;
            let snapshot = container.snapshot();
            let shown = match shown(&snapshot) {
                Ok(shown) => shown.map(Arc::new),
                Err(error) => return Ok(Err(error)),
            };
            let changed = Snapshot {
                shown,
                ..without_link(&snapshot, &alias)?
            };
            inner.write_document(&changed, &ContainerDocument::of(&changed)?)?;
            container.live().update(|current| {
                (current.spec, current.shown) = (changed.spec, changed.shown);
            });
            if snapshot.state.status.has_process() {
                inner.forget_link(&snapshot, &alias);
            }
            Ok(Ok(()))
        };
        Self::whole(work).await?
    }
}

/// A container without one of its links, for which it is not waited at its start either.
fn without_link(snapshot: &Snapshot, alias: &str) -> Result<Snapshot, EngineError> {
    let mut all = connections(snapshot);
    let links = all
        .iter_mut()
        .find(|known| known.network == DEFAULT)
        .map(|known| &mut known.links);
    let found = links.and_then(|links| {
        let index = links.iter().position(|link| link.alias == alias)?;
        let gone = links.remove(index);
        let more = links.iter().any(|link| link.container == gone.container);
        Some((gone, more))
    });
    let Some((gone, is_linked_otherwise)) = found else {
        let name = format!("{}/{alias}", snapshot.name);
        return Err(EngineError::NoSuchContainer(name));
    };
    let mut changed = snapshot.clone();
    let spec = Arc::make_mut(&mut changed.spec);
    spec.connections = Some(all);
    if !is_linked_otherwise {
        spec.start_order
            .after
            .retain(|name| *name != gone.container);
    }
    Ok(changed)
}

impl Inner {
    /// Finds the containers to which a container is linked in the default network.
    ///
    /// # Errors
    /// One does not exist or does not run.
    pub(crate) fn linked(&self, snapshot: &Snapshot) -> Result<Vec<Linked>, EngineError> {
        let connections = connections(snapshot);
        let default = connections.iter().find(|known| known.network == DEFAULT);
        let links = default.map_or(&[][..], |known| &known.links);
        let links = links.iter();
        links.map(|link| self.find_linked(snapshot, link)).collect()
    }

    /// The links of a container to another one, if that runs.
    pub(crate) fn links_to(&self, of: &Snapshot, target: &Snapshot) -> Vec<Linked> {
        let connections = connections(of);
        let default = connections.iter().find(|known| known.network == DEFAULT);
        let links = default.map_or(&[][..], |known| &known.links).iter();
        let leading = links.filter(|link| {
            let found = self.resolve(target.scope, &link.container);
            found.is_ok_and(|found| found.id == target.id)
        });
        let found = leading.filter_map(|link| self.find_linked(of, link).ok());
        found.collect()
    }

    fn find_linked(
        &self,
        snapshot: &Snapshot,
        link: &ContainerLink,
    ) -> Result<Linked, EngineError> {
        let other = self.resolve(Scope::User, &link.container)?.snapshot();
        let running = self.networks.run_of(&other.id);
        let network = self.networks.find(DEFAULT)?;
        let mut endpoints = running.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.network == network.id);
        let address = endpoint.and_then(|endpoint| endpoint.ipv4);
        let Some(IpAddr::V4(address)) = address.map(|prefix| prefix.address) else {
            return Err(EngineError::Conflict(format!(
                "Cannot link to a non running container: /{} AS /{}/{}",
                other.name, snapshot.name, link.alias
            )));
        };
        Ok(Linked {
            alias: link.alias.clone(),
            name: other.name.clone(),
            host_name: other.host_name(),
            address,
            ports: other.spec.exposed_ports.clone(),
            environment: other.spec.process.env.clone(),
        })
    }
}

impl Linked {
    /// The address and the names of the other container.
    pub(crate) fn hosts(&self) -> (IpAddr, Vec<String>) {
        let mut names = vec![self.alias.clone()];
        for name in [&self.host_name, &self.name] {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        (self.address.into(), names)
    }

    /// The environment variables for a container that is linked to this one. `owner`: that
    /// container's name.
    pub(crate) fn variables(&self, owner: &str) -> Vec<String> {
        let prefix = self.alias.replace(['-', '.'], "_").to_uppercase();
        let mut variables = Vec::new();
        let address = self.address;
        let url = |port: &Port| format!("{}://{address}:{}", port.protocol.as_str(), port.number);
        // TCP first, because it is the default protocol.
        let mut ports: Vec<&Port> = self.ports.iter().collect();
        ports.sort_by_key(|port| (port.protocol, port.number));
        if let Some(first) = ports.first() {
            variables.push(format!("{prefix}_PORT={}", url(first)));
        }
        for port in &ports {
            let protocol = port.protocol.as_str();
            let of_port = format!("{prefix}_PORT_{}_{}", port.number, protocol.to_uppercase());
            variables.push(format!("{of_port}={}", url(port)));
            variables.push(format!("{of_port}_ADDR={address}"));
            variables.push(format!("{of_port}_PORT={}", port.number));
            variables.push(format!("{of_port}_PROTO={protocol}"));
        }
        for (start, end) in ranges(&ports) {
            let protocol = start.protocol.as_str();
            let of_range = format!("{prefix}_PORT_{}_{}", start.number, protocol.to_uppercase());
            variables.push(format!("{of_range}_START={}", url(start)));
            variables.push(format!("{of_range}_PORT_START={}", start.number));
            variables.push(format!("{of_range}_END={}", url(end)));
            variables.push(format!("{of_range}_PORT_END={}", end.number));
        }
        variables.push(format!("{prefix}_NAME=/{owner}/{}", self.alias));
        for entry in &self.environment {
            let name = entry.split('=').next().unwrap_or_default();
            if entry.contains('=') && !matches!(name, "HOME" | "PATH") {
                variables.push(format!("{prefix}_ENV_{entry}"));
            }
        }
        variables
    }
}

/// The ranges of at least two consecutive ports.
fn ranges<'a>(ports: &[&'a Port]) -> Vec<(&'a Port, &'a Port)> {
    let mut ranges: Vec<(&Port, &Port)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, end))
                if end.protocol == port.protocol
                    && end.number.checked_add(1) == Some(port.number) =>
            {
                *end = port;
            }
            _ => ranges.push((port, port)),
        }
    }
    ranges.retain(|(start, end)| start != end);
    ranges
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::Protocol;

    use super::*;

    fn port(number: u16, protocol: Protocol) -> Port {
        Port { number, protocol }
    }

    #[test]
    fn variables_and_names_of_a_link() {
        let linked = Linked {
            alias: "my-db".to_owned(),
            name: "db1".to_owned(),
            host_name: "0123456789ab".to_owned(),
            address: Ipv4Addr::new(172, 17, 0, 5),
            ports: BTreeSet::from([
                port(53, Protocol::Udp),
                port(80, Protocol::Tcp),
                port(81, Protocol::Tcp),
            ]),
            environment: ["A=b", "HOME=/x", "PATH=/y", "GONE"]
                .map(str::to_owned)
                .to_vec(),
        };
        let variables = linked.variables("web");
        for expected in [
            "MY_DB_PORT=tcp://172.17.0.5:80",
            "MY_DB_PORT_53_UDP=udp://172.17.0.5:53",
            "MY_DB_PORT_80_TCP_ADDR=172.17.0.5",
            "MY_DB_PORT_80_TCP_PORT=80",
            "MY_DB_PORT_80_TCP_PROTO=tcp",
            "MY_DB_PORT_80_TCP_START=tcp://172.17.0.5:80",
            "MY_DB_PORT_80_TCP_PORT_END=81",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_A=b",
        ] {
            assert!(
                variables.iter().any(|variable| variable == expected),
                "{expected}: {variables:#?}"
            );
        }
        assert!(!variables.iter().any(|variable| {
            variable.contains("HOME") || variable.contains("PATH") || variable.contains("GONE")
        }));
        let (_, names) = linked.hosts();
        assert_eq!(names, ["my-db", "0123456789ab", "db1"]);
    }
}
