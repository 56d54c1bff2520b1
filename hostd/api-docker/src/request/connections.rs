//! The networks of a new container.

use std::collections::BTreeMap;

use keelson_model::spec::ConnectionSpec;

use super::endpoints::{connection, link};
use super::invalid;
use super::namespaces::donor;
use crate::error::ApiError;
use crate::wire::{Config, EndpointSettings, HostConfig, NetworkingConfig};

/// The default network of containers.
pub(crate) const DEFAULT: &str = "bridge";

/// The network that a mode names. `None`: the mode names no network (`host`, `none`,
/// `container:X`).
pub(super) fn main_network(mode: &str) -> Option<&str> {
    match mode {
        "" | "default" | DEFAULT => Some(DEFAULT),
        "none" | "host" => None,
        other if donor(other).is_some() => None,
        other => Some(other),
    }
}

/// Checks a client's own options about networks, before defaults are added.
pub(super) fn check(host: &HostConfig, networking: &NetworkingConfig) -> Result<(), ApiError> {
    let mode = host.network_mode.as_str();
    let others = networking.endpoints_config.keys();
    let others = others.filter(|name| !is_same(name, mode)).count();
    if main_network(mode).is_some() || others == 0 {
        return Ok(());
    }
    match mode {
        "none" => invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        _ => invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
    }
}

/// Whether a key of the settings names the network of the mode.
fn is_same(key: &str, mode: &str) -> bool {
    let plain = |name| match name {
        "" | "default" => DEFAULT,
        other => other,
    };
    plain(key) == plain(mode)
}

/// The connections of a completed request, the main one first; `None`: the defaults of its network
/// mode.
pub(super) fn connections(
    config: &Config,
    host: &HostConfig,
    networking: &NetworkingConfig,
) -> Result<Option<Vec<ConnectionSpec>>, ApiError> {
    let Some(main) = main_network(&host.network_mode) else {
        return Ok(None);
    };
    let mut settings: BTreeMap<&str, EndpointSettings> = BTreeMap::new();
    for (name, given) in &networking.endpoints_config {
        let name = match is_same(name, main) {
            true => main,
            false => name,
        };
        settings.insert(name, given.clone());
    }
    let mut first = settings.remove(main).unwrap_or_default();
    add_mac(&mut first, &config.mac_address)?;
    let mut first = connection(main, &first)?;
    for text in host.links.iter().flatten() {
        let link = link(text)?;
        if !first.links.contains(&link) {
            first.links.push(link);
        }
    }
    let plain = ConnectionSpec {
        network: DEFAULT.to_owned(),
        ..ConnectionSpec::default()
    };
    if settings.is_empty() && first == plain {
        return Ok(None);
    }
    let mut all = vec![first];
    for (name, given) in settings {
        match name {
            "host" => {
                return invalid(
                    "container cannot be connected to host network - container sharing network namespace with another container or host cannot be connected to any other network",
                );
            }
            "none" => {
                return invalid(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode",
                );
            }
            _ => all.push(connection(name, &given)?),
        }
    }
    Ok(Some(all))
}

/// Older clients give one hardware address for the whole container, which applies to its main
/// network.
fn add_mac(main: &mut EndpointSettings, of_container: &str) -> Result<(), ApiError> {
    if of_container.is_empty() {
        return Ok(());
    }
    if !main.mac_address.is_empty() && !main.mac_address.eq_ignore_ascii_case(of_container) {
        return invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or should be left empty",
        );
    }
    of_container.clone_into(&mut main.mac_address);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(
        config: Value,
        host: Value,
        endpoints: Value,
    ) -> Result<Option<Vec<ConnectionSpec>>, String> {
        let config: Config = serde_json::from_value(config).unwrap();
        let host: HostConfig = serde_json::from_value(host).unwrap();
        let networking: NetworkingConfig =
            serde_json::from_value(json!({"EndpointsConfig": endpoints})).unwrap();
        check(&host, &networking)
            .and_then(|()| connections(&config, &host, &networking))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_the_default_network_is_used() {
        for mode in ["", "default", "bridge"] {
            let host = json!({"NetworkMode": mode});
            for endpoints in [json!({}), json!({"default": {}}), json!({"bridge": null})] {
                let endpoints: Value = match endpoints["bridge"].is_null() && mode == "bridge" {
                    true => json!({"bridge": {}}),
                    false => json!({"default": {}}),
                };
                assert_eq!(read(json!({}), host.clone(), endpoints), Ok(None));
            }
        }
    }

    #[test]
    fn the_mode_s_network_comes_first() {
        let all = read(
            json!({"MacAddress": "02:42:ac:11:00:02"}),
            json!({"NetworkMode": "web", "Links": ["/db:/me/data", "cache"]}),
            json!({"back": {"Aliases": ["b"]}, "web": {"GwPriority": 5}}),
        );
        let all = all.unwrap().unwrap();
        let names: Vec<_> = all.iter().map(|one| one.network.as_str()).collect();
        assert_eq!(names, ["web", "back"]);
        assert_eq!(all[0].mac, Some([2, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!(all[0].gateway_priority, 5);
        assert_eq!(all[0].links[0].container, "db");
        assert_eq!(all[0].links[0].alias, "data");
        assert_eq!(all[0].links[1].alias, "cache");
        assert_eq!(all[1].aliases, ["b"]);
    }

    #[test]
    fn conflicting_modes_are_refused() {
        for (host, endpoints, word) in [
            (
                json!({"NetworkMode": "host"}),
                json!({"web": {}}),
                "sharing network",
            ),
            (
                json!({"NetworkMode": "none"}),
                json!({"web": {}}),
                "private (none)",
            ),
            (
                json!({"NetworkMode": "container:a"}),
                json!({"web": {}}),
                "sharing network",
            ),
            (
                json!({"NetworkMode": "web"}),
                json!({"host": {}}),
                "connected to host",
            ),
            (
                json!({"NetworkMode": "web"}),
                json!({"none": {}}),
                "private (none)",
            ),
            (json!({"Links": [":a"]}), json!({}), "link"),
        ] {
            let message = read(json!({}), host, endpoints).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
        let two = read(
            json!({"MacAddress": "02:42:ac:11:00:02"}),
            json!({}),
            json!({"default": {"MacAddress": "02:42:ac:11:00:03"}}),
        );
        assert!(two.unwrap_err().contains("must match"));
        assert_eq!(
            read(
                json!({}),
                json!({"NetworkMode": "host"}),
                json!({"host": {}})
            ),
            Ok(None)
        );
    }
}
