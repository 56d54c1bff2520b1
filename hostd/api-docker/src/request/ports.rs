//! Parses the published ports of a container.

use std::net::IpAddr;

use keelson_model::spec::{Port, PortRange, Protocol, PublishedPort};

use super::invalid;
use crate::error::ApiError;
use crate::wire::{Config, Empty, HostConfig, PortBinding};

/// The most ports that one container may publish, each with a socket that reserves it.
const MAX_PUBLISHED: usize = 16_384;

/// Parses `80/tcp`, `53/udp` or `80`. `None`: it is no port.
pub(super) fn port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let number = number.parse().ok().filter(|number| *number > 0)?;
    Some(Port { number, protocol })
}

/// A published port is exposed, even if the client does not say so.
pub(super) fn expose(config: &mut Config, host: &HostConfig) -> Result<(), ApiError> {
    for name in host.port_bindings.keys() {
        let Some(port) = port(name) else {
            return invalid(format!(
                "invalid port specification: {name:?}: use a number from 1 to 65535 with tcp, udp or sctp, such as \"80/tcp\""
            ));
        };
        // `80` and `80/tcp` are the same.
        let known = config.exposed_ports.keys();
        if !known
            .into_iter()
            .any(|known| self::port(known) == Some(port))
        {
            config.exposed_ports.insert(name.clone(), Empty {});
        }
    }
    Ok(())
}

/// Parses the ports of a completed request.
pub(super) fn published(host: &HostConfig) -> Result<Vec<PublishedPort>, ApiError> {
    let mut published = Vec::new();
    for (name, bindings) in &host.port_bindings {
        let Some(port) = port(name) else {
            return invalid(format!("invalid port specification: {name:?}"));
        };
        // As with Docker, an empty list asks for any port of the host.
        let any = [PortBinding::default()];
        let bindings = bindings.as_deref().filter(|list| !list.is_empty());
        for binding in bindings.unwrap_or(&any) {
            let binding = PublishedPort {
                port,
                host: host_address(binding)?,
                host_ports: host_ports(&binding.host_port)?,
            };
            if !published.contains(&binding) {
                published.push(binding);
            }
        }
    }
    if published.len() > MAX_PUBLISHED {
        return invalid(format!(
            "PortBindings has {} ports, a container may publish at most {MAX_PUBLISHED}",
            published.len()
        ));
    }
    Ok(published)
}

fn host_address(binding: &PortBinding) -> Result<Option<IpAddr>, ApiError> {
    let text = binding.host_ip.as_str();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(text) {
        "" => Ok(None),
        address => address.parse().map(Some).map_err(|_| {
            ApiError::invalid(format!(
                "invalid IP address: {text:?}: HostIp is an address of the host, such as \"127.0.0.1\""
            ))
        }),
    }
}

/// `8080`, `8000-8010`; empty or `0` for any.
fn host_ports(text: &str) -> Result<Option<PortRange>, ApiError> {
    let wrong = || {
        ApiError::invalid(format!(
            "invalid port specification: {text:?}: HostPort is a port or a range of ports, such as \"8080\" or \"8000-8010\""
        ))
    };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u16>().map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let (first, last) = match text.split_once('-') {
        None if text.is_empty() => return Ok(None),
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    match (first, last) {
        (0, 0) => Ok(None),
        (1.., _) if first <= last => Ok(Some(PortRange { first, last })),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(bindings: serde_json::Value) -> Result<Vec<PublishedPort>, String> {
        let host: HostConfig = serde_json::from_value(json!({"PortBindings": bindings})).unwrap();
        published(&host).map_err(|error| error.to_string())
    }

    #[test]
    fn bindings() {
        let all = read(json!({
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": "90-92"}, {}],
            "53/udp": [{"HostIp": "[::1]", "HostPort": "0"}, {"HostIp": "[::1]"}],
            "81": null,
            "82/sctp": [],
        }))
        .unwrap();
        let texts: Vec<_> = all
            .iter()
            .map(|port| {
                let range = port.host_ports.map(|range| (range.first, range.last));
                let host = port.host.map(|host| host.to_string()).unwrap_or_default();
                (port.port.number, host, range)
            })
            .collect();
        assert_eq!(
            texts,
            [
                (53, "::1".to_owned(), None),
                (80, "127.0.0.1".to_owned(), Some((8080, 8080))),
                (80, String::new(), Some((90, 92))),
                (80, String::new(), None),
                (81, String::new(), None),
                (82, String::new(), None),
            ]
        );
    }

    #[test]
    fn invalid_ports_are_named() {
        for (bindings, word) in [
            (json!({"0/tcp": [{}]}), "\"0/tcp\""),
            (json!({"80/icmp": [{}]}), "\"80/icmp\""),
            (json!({"80/tcp": [{"HostPort": "70000"}]}), "\"70000\""),
            (json!({"80/tcp": [{"HostPort": "+80"}]}), "\"+80\""),
            (json!({"80/tcp": [{"HostPort": "9-8"}]}), "\"9-8\""),
            (json!({"80/tcp": [{"HostPort": "0-8"}]}), "\"0-8\""),
            (json!({"80/tcp": [{"HostIp": "eth0"}]}), "\"eth0\""),
        ] {
            let message = read(bindings).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn published_ports_are_exposed() {
        let host: HostConfig =
            serde_json::from_value(json!({"PortBindings": {"80": [{}], "53/udp": null}})).unwrap();
        let mut config: Config =
            serde_json::from_value(json!({"ExposedPorts": {"80/tcp": {}}})).unwrap();
        expose(&mut config, &host).unwrap();
        let names: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(names, ["53/udp", "80/tcp"]);
    }
}
