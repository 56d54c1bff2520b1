//! The namespaces of a container: its own, the host's, or those of another container.

use keelson_model::spec::{Donors, IpcMode, NamespaceMode, NamespaceSpec, NetworkMode};
use keelson_model::users::UserRange;

use super::invalid;
use crate::error::ApiError;
use crate::wire::{Config, HostConfig};

/// The container named by a mode.
pub(crate) fn donor(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// Checks the client's own options, before the image's configuration is added.
pub(super) fn check(config: &Config, host: &HostConfig) -> Result<(), ApiError> {
    let any = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if let Some(name) = donor(&host.network_mode) {
        if name.is_empty() {
            return invalid(format!(
                "invalid container format container:<name|id> (NetworkMode {:?})",
                host.network_mode
            ));
        }
        for (given, words) in [
            (
                !config.hostname.is_empty(),
                "conflicting options: hostname and the network mode",
            ),
            (
                any(&host.links),
                "conflicting options: container type network can't be used with links. This would result in undefined behavior",
            ),
            (
                any(&host.dns),
                "conflicting options: dns and the network mode",
            ),
            (
                any(&host.extra_hosts),
                "conflicting options: custom host-to-IP mapping and the network mode",
            ),
            (
                !config.mac_address.is_empty(),
                "conflicting options: mac-address and the network mode",
            ),
            (
                !host.port_bindings.is_empty() || host.publish_all_ports,
                "conflicting options: port publishing and the container type network mode",
            ),
            (
                !config.exposed_ports.is_empty(),
                "conflicting options: port exposing and the container type network mode",
            ),
        ] {
            if given {
                return invalid(words);
            }
        }
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    Ok(())
}

/// Translates the modes of a completed request. `usual`: the default user range.
pub(super) fn namespaces(
    host: &HostConfig,
    usual: Option<UserRange>,
) -> Result<NamespaceSpec, ApiError> {
    let mut donors = Donors::default();
    let network = match host.network_mode.as_str() {
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        other => match donor(other) {
            Some(name) => {
                donors.network = Some(name.to_owned());
                NetworkMode::None
            }
            // It has its own namespace, which is connected to networks.
            None => NetworkMode::Bridge,
        },
    };
    let pid = match host.pid_mode.as_str() {
        "" => NamespaceMode::Private,
        "host" => NamespaceMode::Host,
        other => match donor(other) {
            Some(name) if !name.is_empty() => {
                donors.pid = Some(name.to_owned());
                NamespaceMode::Private
            }
            _ => return invalid(format!("invalid PID mode: {other}")),
        },
    };
    let ipc = match host.ipc_mode.as_str() {
        "" | "private" => IpcMode::Private,
        "shareable" => IpcMode::Shareable,
        "none" => IpcMode::None,
        "host" => IpcMode::Host,
        other => match donor(other) {
            Some(name) if !name.is_empty() => {
                donors.ipc = Some(name.to_owned());
                IpcMode::Private
            }
            _ => return invalid(format!("invalid IPC mode: {other}")),
        },
    };
    let uts = match host.uts_mode.as_str() {
        "" => NamespaceMode::Private,
        "host" => NamespaceMode::Host,
        other => return invalid(format!("invalid UTS mode: {other}")),
    };
    let cgroup = match host.cgroupns_mode.as_str() {
        "" | "private" => NamespaceMode::Private,
        "host" => NamespaceMode::Host,
        other => return invalid(format!("invalid cgroup namespace mode: {other}")),
    };
    let users = match host.userns_mode.as_str() {
        "" => usual,
        "host" => None,
        other => return invalid(format!("invalid user namespace mode: {other}")),
    };
    Ok(NamespaceSpec {
        network,
        ipc,
        uts,
        cgroup,
        pid,
        users,
        donors,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn host(value: Value) -> HostConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn modes_that_name_a_container() {
        let asked = json!({"NetworkMode": "container:a", "PidMode": "container:b", "IpcMode": "container:c"});
        let spec = namespaces(&host(asked), None).unwrap();
        assert_eq!(spec.donors.ipc.as_deref(), Some("c"));
        assert_eq!(spec.donors.network.as_deref(), Some("a"));
        assert_eq!(spec.donors.pid.as_deref(), Some("b"));
        let of_host = namespaces(&host(json!({"PidMode": "host"})), None).unwrap();
        assert_eq!(of_host.pid, NamespaceMode::Host);
        for mode in ["container:", "mine", "private"] {
            let error = namespaces(&host(json!({"PidMode": mode})), None).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid PID mode: {mode}"));
        }
        for mode in ["container:", "mine"] {
            let error = namespaces(&host(json!({"IpcMode": mode})), None).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid IPC mode: {mode}"));
        }
    }

    #[test]
    fn users_of_its_own() {
        let usual = Some(UserRange {
            base: 100_000,
            size: 65_536,
        });
        let users = |mode: &str| {
            let host = host(json!({ "UsernsMode": mode }));
            namespaces(&host, usual).map(|spec| spec.users)
        };
        assert_eq!(users("").unwrap(), usual);
        assert_eq!(users("host").unwrap(), None);
        for mode in ["private", "keep-id", "container:x"] {
            let error = users(mode).unwrap_err().to_string();
            assert_eq!(error, format!("invalid user namespace mode: {mode}"));
        }
    }

    #[test]
    fn options_of_a_shared_network_are_refused() {
        for (config, more, word) in [
            (json!({"Hostname": "a"}), json!({}), "hostname"),
            (json!({}), json!({"Links": ["a"]}), "links"),
            (json!({}), json!({"Dns": ["1.1.1.1"]}), "dns"),
            (
                json!({}),
                json!({"ExtraHosts": ["a:1.1.1.1"]}),
                "host-to-IP",
            ),
            (json!({"MacAddress": "02::"}), json!({}), "mac-address"),
            (json!({}), json!({"PublishAllPorts": true}), "publishing"),
            (
                json!({"ExposedPorts": {"80/tcp": {}}}),
                json!({}),
                "exposing",
            ),
        ] {
            let config: Config = serde_json::from_value(config).unwrap();
            let mut host = host(more);
            "container:x".clone_into(&mut host.network_mode);
            let message = check(&config, &host).unwrap_err().to_string();
            assert!(message.starts_with("conflicting options: "), "{message}");
            assert!(message.contains(word), "{word}: {message}");
        }
        let empty = host(json!({"NetworkMode": "container:"}));
        assert!(check(&Config::default(), &empty).is_err());
    }
}
