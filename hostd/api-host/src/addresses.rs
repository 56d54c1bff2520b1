//! The names and addresses under which clients reach this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;

/// The machine's host name.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Names and addresses for the server's certificate, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    /// Host names.
    pub names: BTreeSet<String>,
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl ServerNames {
    /// `localhost`, the host name, and the present addresses of all interfaces.
    pub fn of_this_machine() -> Self {
        let interfaces = getifaddrs()
            .map(|list| {
                list.filter_map(|interface| {
                    let address = interface.address?;
                    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
                        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
                        _ => None,
                    }
                })
                .collect::<Vec<_>>()
            })
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "addresses of the interfaces can't be read");
                Vec::new()
            });
        Self::from_parts(&hostname(), &interfaces)
    }

    /// These names and addresses, and those of loopback.
    pub fn from_parts(hostname: &str, interfaces: &[IpAddr]) -> Self {
        let mut names = BTreeSet::from(["localhost".to_owned()]);
        if is_dns_name(hostname) {
            names.insert(hostname.to_ascii_lowercase());
        }
        let mut addresses = BTreeSet::from([
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]);
        addresses.extend(interfaces.iter().filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_loopback(),
            // Link-local addresses mean nothing without a zone, which certificates can't carry.
            IpAddr::V6(v6) => {
                !v6.is_unspecified() && !v6.is_loopback() && !v6.is_unicast_link_local()
            }
        }));
        Self { names, addresses }
    }
}

/// Whether a certificate may carry this as a DNS name. The kernel accepts any text as host name.
fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_useful_names_are_kept() {
        let interfaces = [
            "127.0.0.1",
            "192.0.2.7",
            "fe80::1",
            "2001:db8::7",
            "0.0.0.0",
        ]
        .map(|text| text.parse().unwrap());
        let names = ServerNames::from_parts("Node-1", &interfaces);
        assert_eq!(
            names.names.into_iter().collect::<Vec<_>>(),
            ["localhost", "node-1"]
        );
        let addresses: Vec<String> = names.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"]);
        assert_eq!(ServerNames::from_parts("(none)", &[]).names.len(), 1);
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let names = ServerNames::of_this_machine();
        assert!(names.addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
