//! The names of a container, and how it resolves other names.

use std::net::IpAddr;

use keelson_model::spec::{HostName, HostsEntry, NameSpec};

use super::invalid;
use crate::error::ApiError;
use crate::wire::{Config, HostConfig};

/// Reads the names of a completed request for the container `id`.
pub(super) fn names(id: &str, config: &Config, host: &HostConfig) -> Result<NameSpec, ApiError> {
    let own = id.get(..12).unwrap_or(id);
    let hostname = match config.hostname.as_str() {
        name if name.is_empty() || name == own => HostName::OfContainer,
        name => HostName::Given(name.to_owned()),
    };
    let mut dns_servers = Vec::new();
    for server in host.dns.iter().flatten() {
        let Ok(address) = server.parse() else {
            return invalid(format!(
                "bad parameter: IP address is not correctly formatted: {server}"
            ));
        };
        dns_servers.push(address);
    }
    let (mut hosts, mut names_of_host) = (Vec::new(), Vec::new());
    for entry in host.extra_hosts.iter().flatten() {
        match extra_host(entry)? {
            (name, Some(address)) => hosts.push(HostsEntry {
                name: name.to_owned(),
                address,
            }),
            (name, None) => names_of_host.push(name.to_owned()),
        }
    }
    Ok(NameSpec {
        hostname,
        domain: config.domainname.clone(),
        dns_servers,
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        hosts,
        names_of_host,
    })
}

/// The placeholder for the host's address.
const HOST_GATEWAY: &str = "host-gateway";

/// Parses `name:address` or `name=address`; IPv6 addresses may be in brackets. An address of `None`
/// means the host.
fn extra_host(entry: &str) -> Result<(&str, Option<IpAddr>), ApiError> {
    let read = || {
        let (name, address) = entry.split_once(['=', ':'])?;
        if name.is_empty() || name.bytes().any(|byte| byte <= b' ') {
            return None;
        }
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match bare.unwrap_or(address) {
            HOST_GATEWAY => Some((name, None)),
            address => Some((name, Some(address.parse().ok()?))),
        }
    };
    read().ok_or_else(|| ApiError::invalid(format!("bad format for add-host: {entry:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap().0, "a");
        for entry in ["a:::1", "a=[::1]"] {
            let address: IpAddr = "::1".parse().unwrap();
            assert_eq!(extra_host(entry).unwrap().1, Some(address));
        }
        assert_eq!(extra_host("a:host-gateway").unwrap(), ("a", None));
        for entry in ["", "a", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n:1.1.1.1"] {
            assert!(extra_host(entry).is_err(), "{entry:?}");
        }
    }
}
