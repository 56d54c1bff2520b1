//! Writes a container's hosts file (hosts(5)).

use std::fmt::Write as _;
use std::net::IpAddr;

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The container's hostname.
    pub hostname: String,
    /// Its domain; empty if there is none.
    pub domain: String,
    /// Its addresses, in the order of its networks.
    pub addresses: Vec<IpAddr>,
    /// Whether it has IPv6, which depends on its loopback link and not on its networks.
    pub ipv6: bool,
    /// Names of linked containers, with their addresses.
    pub links: Vec<(IpAddr, Vec<String>)>,
    /// Further names from its creator, with their addresses.
    pub extra: Vec<(String, IpAddr)>,
}

/// The lines of every container.
const IPV4: &str = "127.0.0.1\tlocalhost\n";
/// The lines of containers with IPv6.
const IPV6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
     ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

impl Hosts {
    /// Returns the text of the file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from(IPV4);
        if self.ipv6 {
            text.push_str(IPV6);
        }
        // A `write!` to a string can't fail.
        for (name, address) in &self.extra {
            let _ = writeln!(text, "{address}\t{name}");
        }
        for (address, names) in &self.links {
            let _ = writeln!(text, "{address}\t{}", names.join(" "));
        }
        text.push_str(&self.own_lines());
        text
    }

    /// Returns only the lines of the container's own addresses.
    #[must_use]
    pub fn own_lines(&self) -> String {
        let mut text = String::new();
        let own = self.own_names();
        if !own.is_empty() {
            for address in &self.addresses {
                let _ = writeln!(text, "{address}\t{own}");
            }
        }
        text
    }

    /// The name with its domain comes first, because programs use the first one as the canonical
    /// name.
    fn own_names(&self) -> String {
        let domain = self.domain.trim_matches('.');
        let mut full = self.hostname.trim_end_matches('.').to_owned();
        if !domain.is_empty() {
            full = format!("{full}.{domain}");
        }
        match full.split_once('.') {
            Some((short, _)) => format!("{full} {short}"),
            None => full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_the_containers_names() {
        let hosts = Hosts {
            hostname: "web".to_owned(),
            addresses: vec![address("172.18.0.2"), address("fd00::2")],
            ..Hosts::default()
        };
        assert_eq!(
            hosts.render(),
            "127.0.0.1\tlocalhost\n172.18.0.2\tweb\nfd00::2\tweb\n"
        );
        let names = |hostname: &str, domain: &str| {
            let (hostname, domain) = (hostname.to_owned(), domain.to_owned());
            let hosts = Hosts {
                hostname,
                domain,
                ..Hosts::default()
            };
            hosts.own_names()
        };
        assert_eq!(names("web", "example.org"), "web.example.org web");
        assert_eq!(names("web.example.org", ""), "web.example.org web");
        assert_eq!(names("web.a", "b"), "web.a.b web");
        assert_eq!(names("web", ""), "web");
        assert_eq!(names("", ""), "");
    }

    #[test]
    fn ipv6_lines_need_ipv6() {
        let mut hosts = Hosts::default();
        assert!(!hosts.render().contains("::"));
        hosts.ipv6 = true;
        assert!(
            hosts
                .render()
                .contains("::1\tlocalhost ip6-localhost ip6-loopback\n")
        );
    }

    #[test]
    fn others_come_before_the_container_itself() {
        let hosts = Hosts {
            hostname: "web".to_owned(),
            addresses: vec![address("172.17.0.3")],
            extra: vec![("api".to_owned(), address("::1"))],
            links: vec![(
                address("172.17.0.2"),
                vec![
                    "db".to_owned(),
                    "0123456789ab".to_owned(),
                    "postgres".to_owned(),
                ],
            )],
            ..Hosts::default()
        };
        assert_eq!(
            hosts.render(),
            "127.0.0.1\tlocalhost\n::1\tapi\n172.17.0.2\tdb 0123456789ab postgres\n172.17.0.3\tweb\n"
        );
    }
}
