//! HTTP proxies, in the words of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`).

use std::net::IpAddr;

use http::Uri;

use crate::address::{is_loopback, within};
use crate::error::SettingError;
use crate::uri::host_of;

/// The proxies, and the hosts that are reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For HTTPS: `http://proxy.example:3128`.
    pub https: Option<Uri>,
    /// For plain HTTP.
    pub http: Option<Uri>,
    /// Reached directly: hosts, domains (`.example`), addresses, prefixes, `*`.
    pub direct: Vec<String>,
}

impl Proxies {
    /// Reads the usual environment variables through `get`. Lower-case names have priority.
    ///
    /// # Errors
    /// Names the variable that is no URL of a proxy.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let either = |name: &str| {
            get(name)
                .or_else(|| get(&name.to_ascii_uppercase()))
                .filter(|value| !value.is_empty())
        };
        let proxy = |name: &str| -> Result<Option<Uri>, SettingError> {
            let Some(value) = either(name) else {
                return Ok(None);
            };
            let url = match value.contains("://") {
                true => value,
                false => format!("http://{value}"),
            };
            match url.parse::<Uri>() {
                Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => {
                    Ok(Some(uri))
                }
                _ => Err(SettingError(format!(
                    "{name} is not the URL of an HTTP proxy (http://host:port)"
                ))),
            }
        };
        Ok(Self {
            https: proxy("https_proxy")?,
            http: proxy("http_proxy")?,
            direct: either("no_proxy")
                .unwrap_or_default()
                .split(',')
                .map(|entry| entry.trim().to_ascii_lowercase())
                .filter(|entry| !entry.is_empty())
                .collect(),
        })
    }

    /// The proxy for a host. Loopback is always reached directly.
    pub fn before(&self, tls: bool, authority: &str) -> Option<&Uri> {
        let proxy = if tls { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        (!is_loopback(authority) && !self.is_direct(authority)).then_some(proxy)
    }

    fn is_direct(&self, authority: &str) -> bool {
        let authority = authority.to_ascii_lowercase();
        let host = host_of(&authority);
        self.direct.iter().any(|entry| {
            if entry == "*" || *entry == authority || entry == host {
                return true;
            }
            if let Some((prefix, length)) = entry.split_once('/')
                && let (Ok(prefix), Ok(length)) = (prefix.parse::<IpAddr>(), length.parse())
                && let Ok(address) = host.parse::<IpAddr>()
            {
                return within(address, prefix, length);
            }
            let domain = entry.strip_prefix("*.").or(entry.strip_prefix('.'));
            let domain = domain.unwrap_or(entry);
            host.strip_suffix(domain)
                .is_some_and(|before| before.ends_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_follow_the_environment() {
        let proxies = Proxies::from_variables(|name| {
            Some(match name {
                "HTTPS_PROXY" => "proxy.example:3128".to_owned(),
                "no_proxy" => "lan.example, .corp,10.0.0.0/8,host:5000".to_owned(),
                _ => return None,
            })
        })
        .unwrap();
        assert!(proxies.before(true, "docker.io").is_some());
        assert!(proxies.before(false, "docker.io").is_none());
        for direct in [
            "lan.example",
            "a.lan.example:5000",
            "x.corp",
            "10.2.3.4:5000",
            "host:5000",
            "127.0.0.1:5000",
            "localhost",
        ] {
            assert!(proxies.before(true, direct).is_none(), "{direct}");
        }
        for proxied in ["xlan.example", "corp.example", "11.0.0.1", "host:443"] {
            assert!(proxies.before(true, proxied).is_some(), "{proxied}");
        }
        let wrong = Proxies::from_variables(|_| Some("socks5://a".to_owned()));
        assert!(wrong.is_err());
    }
}
