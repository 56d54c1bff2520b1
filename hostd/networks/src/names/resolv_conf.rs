//! Parses the host's resolv.conf, and writes those of containers (resolv.conf(5)).

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a container's resolver.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Name servers of containers on the default bridge if they can reach none of the host's.
const PUBLIC_IPV4: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];
/// The same for containers with IPv6.
const PUBLIC_IPV6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888),
    Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844),
];

/// Longest file that is read, in bytes.
pub const MAX_FILE: usize = 64 * 1024;

/// A name server's address, with a link if it is link-local.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its address.
    pub address: IpAddr,
    /// The link, by name.
    pub zone: Option<String>,
}

impl Server {
    /// Parses an address, with or without `%link`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, zone) = match text.split_once('%') {
            Some((_, "")) => return None,
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        // Only IPv6 addresses have links.
        (zone.is_none() || address.is_ipv6()).then_some(Self { address, zone })
    }
}

impl From<IpAddr> for Server {
    fn from(address: IpAddr) -> Self {
        Self {
            address,
            zone: None,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match &self.zone {
            Some(zone) => write!(f, "%{zone}"),
            None => Ok(()),
        }
    }
}

/// A parsed resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in their order.
    pub servers: Vec<Server>,
    /// Search domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
    /// Other directives, unchanged.
    pub others: Vec<String>,
}

/// A container's own values, from its creator. Empty members mean: like the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; a single `.` means none.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Parses a file. Like the C library, it skips what it does not understand.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            let Some(directive) = words.next() else {
                continue;
            };
            match directive {
                "nameserver" => conf.servers.extend(words.next().and_then(Server::parse)),
                // The last one counts.
                "search" | "domain" => conf.search = words.map(str::to_owned).collect(),
                "options" => conf.options.extend(words.map(str::to_owned)),
                _ => conf.others.push(line.to_owned()),
            }
        }
        if conf.search == ["."] {
            conf.search.clear();
        }
        conf
    }

    /// Applies a container's own values.
    #[must_use]
    pub fn with(&self, wishes: &Wishes) -> Self {
        let mut conf = self.clone();
        if !wishes.servers.is_empty() {
            conf.servers = wishes.servers.iter().copied().map(Server::from).collect();
        }
        if !wishes.search.is_empty() {
            conf.search.clone_from(&wishes.search);
            if conf.search == ["."] {
                conf.search.clear();
            }
        }
        if !wishes.options.is_empty() {
            conf.options.clone_from(&wishes.options);
        }
        conf
    }

    /// Whether `ndots` is set above 0. Names with at least that many dots are absolute.
    #[must_use]
    pub fn sets_ndots(&self) -> bool {
        self.ndots().is_some_and(|number| number > 0)
    }

    /// The last valid number counts.
    fn ndots(&self) -> Option<u32> {
        let values = self.options.iter().rev();
        values
            .filter_map(|option| option.strip_prefix("ndots:"))
            .find_map(|value| value.parse().ok())
    }

    /// Writes the file of a container that uses the resolver.
    #[must_use]
    pub fn for_resolver(&self) -> String {
        let mut options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        // For an invalid number the C library would use 1, and would not ask for single names.
        options.retain(|option| {
            let value = option.strip_prefix("ndots:");
            option != &"ndots" && value.is_none_or(|value| value.parse::<u32>().is_ok())
        });
        if self.ndots().is_none() {
            options.push("ndots:0");
        }
        let mut text = String::from(
            "# Made by the container engine. Names of containers are answered at this address, others\n",
        );
        let asked: Vec<String> = self.servers.iter().map(Server::to_string).collect();
        let asked = match asked.is_empty() {
            true => "nobody".to_owned(),
            false => asked.join(", "),
        };
        // A `write!` to a string can't fail.
        let _ = writeln!(text, "# are asked of: {asked}.");
        self.render(&mut text, &[Server::from(IpAddr::from(RESOLVER))], &options);
        text
    }

    /// Writes the file of a container on the default bridge, with the servers that it can reach
    /// itself.
    #[must_use]
    pub fn for_default_bridge(&self, wishes: &Wishes, ipv6: bool) -> String {
        let conf = self.with(wishes);
        let mut servers = conf.servers.clone();
        if wishes.servers.is_empty() {
            servers.retain(|server| {
                let usable = !server.address.is_loopback() && server.zone.is_none();
                usable && (ipv6 || server.address.is_ipv4())
            });
        }
        let mut text = String::from("# Made by the container engine.\n");
        if servers.is_empty() {
            text.push_str(
                "# The host has no name server that containers reach: these are public.\n",
            );
            servers.extend(PUBLIC_IPV4.map(|address| Server::from(IpAddr::from(address))));
            if ipv6 {
                servers.extend(PUBLIC_IPV6.map(|address| Server::from(IpAddr::from(address))));
            }
        }
        let options: Vec<&str> = conf.options.iter().map(String::as_str).collect();
        conf.render(&mut text, &servers, &options);
        text
    }

    fn render(&self, text: &mut String, servers: &[Server], options: &[&str]) {
        for server in servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if !options.is_empty() {
            let _ = writeln!(text, "options {}", options.join(" "));
        }
        for line in &self.others {
            let _ = writeln!(text, "{line}");
        }
    }
}

/// systemd-resolved lists its own upstream servers here.
pub const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Whether the only server is systemd-resolved at a loopback address. Then containers on the
/// default bridge need the servers in [`RESOLVED`].
#[must_use]
pub fn is_stub(conf: &ResolvConf) -> bool {
    matches!(conf.servers.as_slice(), [only] if only.address == IpAddr::from([127, 0, 0, 53]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "# comment\n; another\n\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n\
        nameserver fe80::1%eth0\nnameserver 2001:db8::53\nnameserver nonsense\n\
        domain old.example\nsearch a.example  b.example\noptions edns0 ndots:x\n\
        options timeout:2\nsortlist 192.0.2.0/24\nlookup file bind\n";

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn a_file_is_parsed_like_the_c_library_does() {
        let conf = ResolvConf::parse(HOST);
        let servers: Vec<String> = conf.servers.iter().map(Server::to_string).collect();
        let all = ["127.0.0.53", "192.0.2.1", "fe80::1%eth0", "2001:db8::53"];
        assert_eq!(servers, all);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(conf.options, ["edns0", "ndots:x", "timeout:2"]);
        assert_eq!(conf.others, ["sortlist 192.0.2.0/24", "lookup file bind"]);
        assert_eq!(ResolvConf::parse("search ."), ResolvConf::default());
        for wrong in ["", "1.2.3", "fe80::1%", "192.0.2.1%eth0"] {
            assert_eq!(Server::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_container_with_the_resolver_asks_only_the_resolver() {
        let text = ResolvConf::parse(HOST).for_resolver();
        assert_eq!(
            lines(&text),
            [
                "nameserver 127.0.0.11",
                "search a.example b.example",
                "options edns0 timeout:2 ndots:0",
                "sortlist 192.0.2.0/24",
                "lookup file bind",
            ]
        );
        assert!(
            text.contains("127.0.0.53, 192.0.2.1, fe80::1%eth0"),
            "{text}"
        );
        // The parsed file has no other server.
        let again = ResolvConf::parse(&text);
        assert_eq!(again.servers, [Server::from(IpAddr::from(RESOLVER))]);
        let text = ResolvConf::default().for_resolver();
        assert_eq!(lines(&text), ["nameserver 127.0.0.11", "options ndots:0"]);
        assert!(text.contains("asked of: nobody"), "{text}");
    }

    #[test]
    fn ndots_is_kept_when_it_is_a_number() {
        let options = |text: &str| {
            let conf = ResolvConf::parse(&format!("options {text}"));
            let file = conf.for_resolver();
            let line = lines(&file).pop().unwrap().to_owned();
            (line, conf.sets_ndots())
        };
        let line = |text: &str| format!("options {text}");
        assert_eq!(options("ndots:2"), (line("ndots:2"), true));
        assert_eq!(options("ndots:0"), (line("ndots:0"), false));
        assert_eq!(options("ndots:-1"), (line("ndots:0"), false));
        assert_eq!(options("ndots"), (line("ndots:0"), false));
        assert_eq!(options("ndots: rotate"), (line("rotate ndots:0"), false));
    }

    #[test]
    fn the_creators_values_replace_the_hosts() {
        let host = ResolvConf::parse(HOST);
        let wishes = Wishes {
            servers: vec!["198.51.100.1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:3".to_owned()],
        };
        let conf = host.with(&wishes);
        let file = conf.for_resolver();
        assert_eq!(
            lines(&file)[..2],
            ["nameserver 127.0.0.11", "options ndots:3"]
        );
        assert!(conf.sets_ndots());
        let file = host.for_default_bridge(&wishes, false);
        assert_eq!(
            lines(&file)[..2],
            ["nameserver 198.51.100.1", "options ndots:3"]
        );
        // The creator's value is used, even if it is useless.
        let wishes = Wishes {
            servers: vec!["127.0.0.1".parse().unwrap()],
            ..Wishes::default()
        };
        let file = host.for_default_bridge(&wishes, false);
        assert_eq!(lines(&file)[0], "nameserver 127.0.0.1");
    }

    #[test]
    fn containers_on_the_default_bridge_get_servers_that_they_can_reach() {
        let servers = |text: &str, ipv6| -> Vec<String> {
            let file = ResolvConf::parse(text).for_default_bridge(&Wishes::default(), ipv6);
            ResolvConf::parse(&file)
                .servers
                .iter()
                .map(Server::to_string)
                .collect()
        };
        assert_eq!(servers(HOST, false), ["192.0.2.1"]);
        assert_eq!(servers(HOST, true), ["192.0.2.1", "2001:db8::53"]);
        assert_eq!(
            servers("nameserver 127.0.0.53", false),
            ["8.8.8.8", "8.8.4.4"]
        );
        assert_eq!(servers("nameserver ::1", true).len(), 4);
        // Its options are not changed, because nobody answers single names there.
        let file = ResolvConf::parse(HOST).for_default_bridge(&Wishes::default(), false);
        assert!(file.contains("options edns0 ndots:x timeout:2\n"), "{file}");
        assert!(is_stub(&ResolvConf::parse("nameserver 127.0.0.53")));
        assert!(!is_stub(&ResolvConf::parse(HOST)));
    }

    proptest! {
        #[test]
        fn written_files_can_be_parsed(text in "[ -~\n]{0,300}") {
            let conf = ResolvConf::parse(&text);
            let again = ResolvConf::parse(&conf.for_resolver());
            prop_assert_eq!(again.servers.len(), 1);
            prop_assert_eq!(&again.search, &conf.search);
            prop_assert_eq!(&again.others, &conf.others);
            prop_assert!(again.ndots().is_some());
        }
    }
}
