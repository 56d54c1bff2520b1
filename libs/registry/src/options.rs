//! Settings for the connection to registries.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;

use crate::address::{is_loopback, within};
use crate::error::SettingError;
use crate::proxy::Proxies;
use crate::uri::host_of;

/// Settings of the registry client.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Mirrors of Docker Hub, tried in this order before it: `https://mirror.example`.
    pub mirrors: Vec<Mirror>,
    /// Registries for which plain HTTP is allowed, and whose certificates are not checked.
    pub insecure: Vec<HostRule>,
    /// Directories with a subdirectory for each registry (`host` or `host:port`) that has
    /// certificate authorities (`*.crt`) and client certificates (`*.cert` with `*.key`), as in
    /// Docker.
    pub certificates: Vec<PathBuf>,
    /// Files with credentials in the format of Docker's `config.json` and podman's `auth.json`.
    /// They are searched in this order if the caller has no credentials.
    pub credentials: Vec<PathBuf>,
    /// Bundles of the system's certificate authorities. The first existing one is used.
    pub bundles: Vec<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Deadlines and retries.
    pub deadlines: Deadlines,
    /// Sent with every request.
    pub user_agent: String,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certificates: vec!["/etc/docker/certs.d".into()],
            credentials: Vec::new(),
            bundles: vec![
                "/etc/ssl/certs/ca-certificates.crt".into(),
                "/etc/pki/tls/certs/ca-bundle.crt".into(),
                "/etc/ssl/cert.pem".into(),
            ],
            proxies: Proxies::default(),
            deadlines: Deadlines::default(),
            user_agent: concat!("Keelson/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Deadlines and retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For name resolution, connection and TLS.
    pub connect: Duration,
    /// Limit until the head of an answer arrives.
    pub answer: Duration,
    /// Limit between two pieces of a body.
    pub stall: Duration,
    /// How often a request is tried, and how often a broken blob is resumed without progress.
    pub attempts: u32,
    /// The wait before the first retry; it doubles each time.
    pub back_off: Duration,
    /// Longest wait before a retry, even if the registry asks for a longer one.
    pub longest_wait: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            attempts: 5,
            back_off: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// The address of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Host and optional port.
    pub authority: String,
}

impl FromStr for Mirror {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = |reason: &str| {
            Err(SettingError(format!(
                "invalid mirror {text:?}: {reason}; expected https://host[:port]"
            )))
        };
        let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return wrong("it begins with neither https:// nor http://");
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return wrong("a path or query is not supported");
        }
        if authority.contains('@') {
            return wrong("credentials do not belong there");
        }
        match format!("https://{authority}/").parse::<Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self {
                tls,
                authority: authority.to_owned(),
            }),
            _ => wrong("it names no host"),
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// A rule that matches registries: `host`, `host:port`, or addresses by prefix (`10.0.0.0/8`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRule {
    /// One host. Without a port: all its ports.
    Host(String),
    /// Registries that are named by an address within a prefix.
    Prefix(IpAddr, u8),
}

impl FromStr for HostRule {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = |reason: &str| {
            Err(SettingError(format!(
                "invalid insecure registry {text:?}: {reason}; expected host[:port] or a prefix \
                 such as 10.0.0.0/8"
            )))
        };
        if text.contains("://") {
            return wrong("it must not have a scheme");
        }
        if text.contains('@') {
            return wrong("credentials do not belong there");
        }
        if let Some((address, length)) = text.split_once('/') {
            let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>())
            else {
                return wrong("it is not a prefix");
            };
            let most = if address.is_ipv4() { 32 } else { 128 };
            if length > most {
                return wrong("its prefix length is too large");
            }
            return Ok(Self::Prefix(address, length));
        }
        match format!("http://{text}/").parse::<Uri>() {
            Ok(uri) if uri.authority().is_some_and(|name| name.as_str() == text) => {
                Ok(Self::Host(text.to_ascii_lowercase()))
            }
            _ => wrong("it is not a host"),
        }
    }
}

impl HostRule {
    /// Whether the rule matches a registry (`host[:port]`).
    pub fn covers(&self, authority: &str) -> bool {
        let host = host_of(authority);
        match self {
            Self::Host(name) => {
                name.eq_ignore_ascii_case(authority) || name.eq_ignore_ascii_case(host)
            }
            Self::Prefix(prefix, length) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| within(address, *prefix, *length)),
        }
    }
}

/// Whether an authority means this machine in any of the ways that addresses can be written.
fn is_own(authority: &str) -> bool {
    let host = host_of(authority)
        .trim_end_matches('.')
        .to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        // Shortened and other forms of an IPv4 address, see inet_aton(3).
        Err(_) => {
            let last = host.rsplit('.').next().unwrap_or_default();
            last.starts_with(|first: char| first.is_ascii_digit())
        }
    }
}

impl RegistryOptions {
    /// Whether the operator named this registry as insecure.
    pub fn is_insecure(&self, authority: &str) -> bool {
        self.insecure.iter().any(|rule| rule.covers(authority))
    }

    /// Whether a registry may be on this machine: its name is a local one, or the operator's
    /// configuration names it. Servers can't redirect to a local name ([`Self::may_lead`]), so only
    /// the caller can have named it. Reads directories.
    pub(crate) fn is_named(&self, authority: &str) -> bool {
        is_loopback(authority)
            || self.is_insecure(authority)
            || self
                .mirrors
                .iter()
                .any(|mirror| mirror.authority == authority)
            || self.has_certificates(authority)
    }

    /// Whether there is a directory with certificates for a registry.
    fn has_certificates(&self, authority: &str) -> bool {
        // A text that could lead to another directory is not the name of a registry.
        !authority.contains('/')
            && !matches!(authority, "" | "." | "..")
            && self
                .certificates
                .iter()
                .any(|directory| directory.join(authority).is_dir())
    }

    /// Whether a server may redirect us to another one. Servers must not reach programs on this
    /// machine through us, unless the operator named one of both as insecure. Here names are judged
    /// by their text; their addresses are judged at the connection ([`crate::own`]).
    pub(crate) fn may_lead(&self, from: &str, to: &str) -> bool {
        !is_own(to) || is_own(from) || self.is_insecure(from) || self.is_insecure(to)
    }

    /// Whether credentials of the machine may go to this registry without TLS.
    pub(crate) fn may_see_secrets(&self, authority: &str) -> bool {
        is_loopback(authority) || self.is_insecure(authority)
    }

    /// Whether plain HTTP may be spoken with this registry.
    pub fn may_be_plain(&self, authority: &str) -> bool {
        is_loopback(authority)
            || self.is_insecure(authority)
            || self
                .mirrors
                .iter()
                .any(|mirror| !mirror.tls && mirror.authority == authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_cover_hosts_and_prefixes() {
        for (rule, covered, others) in [
            (
                "registry.lan",
                &["registry.lan", "Registry.lan:5000"][..],
                &["a.registry.lan", "registry.lan.example"][..],
            ),
            (
                "registry.lan:5000",
                &["registry.lan:5000"],
                &["registry.lan", "registry.lan:443"],
            ),
            (
                "10.0.0.0/8",
                &["10.1.2.3", "10.255.0.1:5000"],
                &["11.0.0.1", "[::a00:1]:5000", "ten.example"],
            ),
            ("::/0", &["[::1]:5000", "[2001:db8::1]"], &["127.0.0.1"]),
            ("fd00::/8", &["[fd12::1]:5000"], &["[fe80::1]"]),
            ("0.0.0.0/0", &["1.2.3.4"], &["[::1]"]),
        ] {
            let rule: HostRule = rule.parse().unwrap();
            for name in covered {
                assert!(rule.covers(name), "{rule:?} {name}");
            }
            for name in others {
                assert!(!rule.covers(name), "{rule:?} {name}");
            }
        }
        for wrong in ["", "http://a", "10.0.0.0/33", "a/b", "a b", "::/129", "u@h"] {
            assert!(wrong.parse::<HostRule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn mirrors_are_read() {
        let mirror: Mirror = "https://mirror.example:5000/".parse().unwrap();
        assert_eq!(mirror.to_string(), "https://mirror.example:5000");
        assert!(!"http://10.0.0.1".parse::<Mirror>().unwrap().tls);
        for wrong in [
            "mirror",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u:p@a",
        ] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_may_redirect_to_loopback() {
        let options = RegistryOptions::default();
        for (from, to, may) in [
            ("registry.example", "cdn.example", true),
            ("registry.example", "127.0.0.1:5000", false),
            ("10.0.0.1:5000", "localhost", false),
            ("registry.example", "[::1]:443", false),
            ("registry.example", "[::ffff:127.0.0.1]", false),
            ("registry.example", "0.0.0.0:80", false),
            ("registry.example", "127.1:80", false),
            ("registry.example", "a.localhost.", false),
            ("registry.example", "2130706433", false),
            ("registry.example", "cdn1.example:8443", true),
            ("registry.example", "192.0.2.1", true),
            ("localhost:5000", "127.0.0.1:5001", true),
            ("127.0.0.1:5000", "cdn.example", true),
        ] {
            assert_eq!(options.may_lead(from, to), may, "{from} {to}");
        }
        let options = RegistryOptions {
            insecure: vec!["lab.example:5000".parse().unwrap()],
            ..RegistryOptions::default()
        };
        assert!(options.may_lead("lab.example:5000", "localhost:5001"));
        assert!(!options.may_lead("other.example", "localhost:5001"));
    }

    #[test]
    fn plain_http_is_for_loopback_and_configured_hosts() {
        let options = RegistryOptions {
            insecure: vec!["lab.example:5000".parse().unwrap()],
            mirrors: vec!["http://mirror.example".parse().unwrap()],
            ..RegistryOptions::default()
        };
        for plain in [
            "localhost",
            "localhost:5000",
            "127.1.2.3:80",
            "[::1]:5000",
            "lab.example:5000",
            "mirror.example",
        ] {
            assert!(options.may_be_plain(plain), "{plain}");
        }
        for tls in [
            "docker.io",
            "lab.example",
            "10.0.0.1:5000",
            "localhost.example",
        ] {
            assert!(!options.may_be_plain(tls), "{tls}");
        }
    }
}
