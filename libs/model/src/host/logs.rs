//! What the configuration says about the machine's logs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::logs::LogPriority;

/// `[logs]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Bytes that the store may have; 128 MiB, and never more than a tenth of the file system.
    pub max_size: u64,
    /// Days after which lines are removed; 0: never.
    pub max_age: u32,
    /// `[[logs.forward]]`: where lines are forwarded to.
    pub forward: Vec<ForwardConfig>,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            max_size: 128 << 20,
            max_age: 90,
            forward: Vec::new(),
        }
    }
}

/// One entry of `[[logs.forward]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Its name. How far lines were sent is remembered under it.
    pub name: String,
    /// See [`LogTarget`].
    pub target: String,
    /// Only these units; all if it is empty.
    #[serde(default)]
    pub units: Vec<String>,
    /// The least urgent lines that are sent; info.
    #[serde(default)]
    pub priority: LogPriority,
    /// Certificates of authorities that the target's certificate must come from, in PEM; the system's
    /// when absent.
    pub ca: Option<PathBuf>,
    /// The machine's own certificate, in PEM, for targets that want one.
    pub certificate: Option<PathBuf>,
    /// Its key, in PEM.
    pub key: Option<PathBuf>,
    /// File with the token for `Authorization: Bearer`.
    pub token: Option<PathBuf>,
}

/// How lines go to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTransport {
    /// Syslog (RFC 5424), one datagram for each line (RFC 5426).
    Udp,
    /// Syslog over TCP, each line with its length before it (RFC 6587).
    Tcp,
    /// Syslog over TLS (RFC 5425).
    Tls,
    /// `POST` of JSON documents, one on each line.
    Http,
    /// The same over TLS.
    Https,
}

impl LogTransport {
    const ALL: [(&'static str, Self, u16); 5] = [
        ("udp", Self::Udp, 514),
        ("tcp", Self::Tcp, 514),
        ("tls", Self::Tls, 6514),
        ("http", Self::Http, 80),
        ("https", Self::Https, 443),
    ];

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// Whether lines are sent as requests of HTTP.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// The address of a target: `udp://HOST[:PORT]`, `tcp://…`, `tls://…` for syslog, or
/// `http://HOST[:PORT]/PATH`, `https://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget {
    /// How lines go there.
    pub transport: LogTransport,
    /// Name or address, without the brackets of IPv6.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, for HTTP; empty otherwise.
    pub path: String,
}

/// Why a text is no [`LogTarget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogTargetError {
    /// It begins with no known scheme.
    #[error("begins with none of udp://, tcp://, tls://, http:// and https://")]
    Scheme,
    /// There is no host, or one with characters that none has.
    #[error("names no host")]
    Host,
    /// The port is no number between 1 and 65535.
    #[error("has a wrong port")]
    Port,
    /// Something stands after the host of a syslog server.
    #[error("has a path, which syslog does not know")]
    Path,
}

impl FromStr for LogTarget {
    type Err = LogTargetError;

    fn from_str(text: &str) -> Result<Self, LogTargetError> {
        let (scheme, rest) = text.split_once("://").ok_or(LogTargetError::Scheme)?;
        let mut known = LogTransport::ALL.into_iter();
        let (_, transport, usual) = known
            .find(|(name, ..)| *name == scheme)
            .ok_or(LogTargetError::Scheme)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(LogTargetError::Host)?;
                host.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| LogTargetError::Host)?;
                (
                    host,
                    after.strip_prefix(':').or(after.is_empty().then_some("")),
                )
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, Some("")),
            },
        };
        let port = match port.ok_or(LogTargetError::Port)? {
            "" if authority.ends_with(':') => return Err(LogTargetError::Port),
            "" => usual,
            port => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(LogTargetError::Port)?,
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(valid) {
            return Err(LogTargetError::Host);
        }
        let path = match transport.is_http() {
            true if path.is_empty() => "/",
            true if path.bytes().all(|byte| byte.is_ascii_graphic()) => path,
            false if matches!(path, "" | "/") => "",
            _ => return Err(LogTargetError::Path),
        };
        Ok(Self {
            transport,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

impl LogTarget {
    /// `HOST:PORT`, with brackets around IPv6.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = LogTransport::ALL.into_iter();
        let scheme = known.find(|(_, transport, _)| *transport == self.transport);
        let scheme = scheme.map_or("", |(name, ..)| name);
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        for (text, shown) in [
            ("udp://192.0.2.1", "udp://192.0.2.1:514"),
            (
                "tcp://logs.example.net:1514/",
                "tcp://logs.example.net:1514",
            ),
            ("tls://[2001:db8::1]", "tls://[2001:db8::1]:6514"),
            ("http://sink/in?x=1", "http://sink:80/in?x=1"),
            ("https://[::1]:8443", "https://[::1]:8443/"),
        ] {
            assert_eq!(text.parse::<LogTarget>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("logs.example.net:514", LogTargetError::Scheme),
            ("syslog://a", LogTargetError::Scheme),
            ("udp://", LogTargetError::Host),
            ("udp://a b", LogTargetError::Host),
            ("udp://user@a", LogTargetError::Host),
            ("udp://[::1", LogTargetError::Host),
            ("udp://[x]", LogTargetError::Host),
            ("udp://a:", LogTargetError::Port),
            ("udp://a:0", LogTargetError::Port),
            ("udp://[::1]x", LogTargetError::Port),
            ("tcp://a:70000", LogTargetError::Port),
            ("tcp://a/path", LogTargetError::Path),
            ("http://a/b c", LogTargetError::Path),
        ] {
            assert_eq!(text.parse::<LogTarget>(), Err(error), "{text}");
        }
    }
}
