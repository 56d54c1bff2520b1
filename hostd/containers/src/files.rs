//! /etc/hostname, /etc/hosts and /etc/resolv.conf of a container.

use std::net::IpAddr;

use keelson_model::container::{Config, HostConfig};

use crate::EngineError;

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// /etc/hostname.
pub(crate) fn hostname(config: &Config) -> String {
    format!("{}\n", config.hostname)
}

/// /etc/hosts. With the host's network it begins with the host's file.
pub(crate) fn hosts(host: &HostConfig, hosts_of_host: &str) -> Result<String, EngineError> {
    let mut text = if host.network_mode == "host" {
        hosts_of_host.to_owned()
    } else {
        HOSTS.to_owned()
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in host.extra_hosts.iter().flatten() {
        let (name, address) = parse_extra_host(entry)?;
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Ok(text)
}

/// /etc/resolv.conf: the host's, with the members replaced that the client gave.
pub(crate) fn resolv_conf(host: &HostConfig, resolv_of_host: &str) -> String {
    let servers = host.dns.as_deref().unwrap_or_default();
    let search = host.dns_search.as_deref().unwrap_or_default();
    let options = host.dns_options.as_deref().unwrap_or_default();
    let mut text = String::new();
    for line in resolv_of_host.lines() {
        let replaced = match line.split_whitespace().next() {
            Some("nameserver") => !servers.is_empty(),
            Some("search" | "domain") => !search.is_empty(),
            Some("options") => !options.is_empty(),
            Some(word) if word.starts_with(['#', ';']) => true,
            Some(_) => false,
            None => true,
        };
        if !replaced {
            text.push_str(line);
            text.push('\n');
        }
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // A single dot asks for no search domain at all.
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// `name:address` or `name=address`; IPv6 addresses may stand in brackets.
pub(crate) fn parse_extra_host(entry: &str) -> Result<(&str, IpAddr), EngineError> {
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
        .ok_or_else(|| EngineError::Invalid(format!("bad format for add-host: {entry:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts() {
        assert_eq!(parse_extra_host("a:1.2.3.4").unwrap().0, "a");
        assert_eq!(
            parse_extra_host("a:::1").unwrap().1,
            "::1".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            parse_extra_host("a=[fe80::1]").unwrap().1,
            "fe80::1".parse::<IpAddr>().unwrap()
        );
        for entry in ["", "a", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\n:1.1.1.1"] {
            assert!(parse_extra_host(entry).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn files() {
        let mut host = HostConfig {
            extra_hosts: Some(vec!["db:10.0.0.1".to_owned()]),
            ..HostConfig::default()
        };
        assert!(hosts(&host, "x").unwrap().ends_with("10.0.0.1\tdb\n"));
        host.network_mode = "host".to_owned();
        assert_eq!(
            hosts(&host, "1.1.1.1 x").unwrap(),
            "1.1.1.1 x\n10.0.0.1\tdb\n"
        );

        let of_host = "# made by x\nnameserver 1.1.1.1\nsearch a b\n\noptions ndots:1\n";
        assert_eq!(
            resolv_conf(&host, of_host),
            "nameserver 1.1.1.1\nsearch a b\noptions ndots:1\n"
        );
        host.dns = Some(vec!["9.9.9.9".to_owned()]);
        host.dns_search = Some(vec![".".to_owned()]);
        assert_eq!(
            resolv_conf(&host, of_host),
            "options ndots:1\nnameserver 9.9.9.9\n"
        );
    }
}
