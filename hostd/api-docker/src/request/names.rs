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
    let hosts = host.extra_hosts.iter().flatten();
    Ok(NameSpec {
        hostname,
        domain: config.domainname.clone(),
        dns_servers,
        dns_search: host.dns_search.clone().unwrap_or_default(),
        dns_options: host.dns_options.clone().unwrap_or_default(),
        hosts: hosts
            .map(|entry| {
                let (name, address) = extra_host(entry)?;
                let name = name.to_owned();
                Ok::<_, ApiError>(HostsEntry { name, address })
            })
            .collect::<Result<_, _>>()?,
    })
}

/// `name:address` or `name=address`; IPv6 addresses may stand in brackets.
fn extra_host(entry: &str) -> Result<(&str, IpAddr), ApiError> {
    entry
        .split_once(['=', ':'])
        .filter(|(name, _)| !name.is_empty() && !name.bytes().any(|byte| byte <= b' '))
        .and_then(|(name, address)| {
            let address = address
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .unwrap_or(address);
            Some((name, address.parse().ok()?))
        })
        .ok_or_else(|| ApiError::invalid(format!("bad format for add-host: {entry:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap().0, "a");
        for entry in ["a:::1", "a=[::1]"] {
            let address: IpAddr = "::1".parse().unwrap();
            assert_eq!(extra_host(entry).unwrap().1, address);
        }
        for entry in ["", "a", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n:1.1.1.1"] {
            assert!(extra_host(entry).is_err(), "{entry:?}");
        }
    }
}
