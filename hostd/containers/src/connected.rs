//! Questions about the networks in a container's specification.

use keelson_model::spec::{ConnectionSpec, NetworkMode};

use crate::types::Snapshot;

/// The default network of containers.
pub(crate) const DEFAULT: &str = "bridge";

/// Whether a container has its own network namespace that is connected to networks.
pub(crate) fn is_connected(snapshot: &Snapshot) -> bool {
    let namespaces = &snapshot.spec.namespaces;
    namespaces.network == NetworkMode::Bridge && namespaces.donors.network.is_none()
}

/// The networks to which a container is connected.
pub(crate) fn connections(snapshot: &Snapshot) -> Vec<ConnectionSpec> {
    match &snapshot.spec.connections {
        Some(connections) => connections.clone(),
        None => vec![ConnectionSpec {
            network: DEFAULT.to_owned(),
            ..ConnectionSpec::default()
        }],
    }
}

/// Whether a container has IPv6 on its loopback link.
pub(crate) fn has_ipv6(snapshot: &Snapshot) -> bool {
    let off = |name: &str| {
        let value = snapshot.spec.sysctls.get(name);
        value.is_some_and(|value| value.trim() == "1")
    };
    !off("net.ipv6.conf.all.disable_ipv6") && !off("net.ipv6.conf.lo.disable_ipv6")
}
