//! The networks of a container, by its specification.

use hostd_containers::Snapshot;
use keelson_model::spec::NetworkMode;
use keelson_oci::digest::Digest;

/// The name of the network that is shown as a container's mode.
pub(crate) fn mode(container: &Snapshot) -> String {
    let namespaces = &container.spec.namespaces;
    if let Some(donor) = &namespaces.donors.network {
        return format!("container:{donor}");
    }
    match namespaces.network {
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Bridge => {
            let asked = container.spec.connections.as_deref();
            let first = asked.and_then(<[_]>::first);
            first.map_or("bridge", |first| &first.network).to_owned()
        }
    }
}

/// The names of the networks that a container is connected to.
pub(crate) fn names(container: &Snapshot) -> Vec<String> {
    let namespaces = &container.spec.namespaces;
    if namespaces.donors.network.is_some() {
        return Vec::new();
    }
    match (&namespaces.network, &container.spec.connections) {
        (NetworkMode::Bridge, Some(asked)) => {
            asked.iter().map(|asked| asked.network.clone()).collect()
        }
        _ => vec![mode(container)],
    }
}

/// Identifier of an endpoint that exists in name only.
pub(crate) fn endpoint_id(container: &Snapshot) -> String {
    Digest::of(format!("{} in {}", container.id, mode(container)).as_bytes()).hex()
}
