//! Downloads files from addresses that a user named: from any server, by HTTP or HTTPS, with the
//! same proxies and certificates as for registries.

use bytes::Bytes;
use http::{Method, StatusCode, Uri, header};
use hyper::body::Incoming;
use keelson_model::error::ErrorKind;

use crate::asked::Asked;
use crate::body::Pace;
use crate::client::{Ask, Attempt, Client, chain};
use crate::repository::location;
use crate::uri::{authority, basic, without_user};

/// How many redirects are followed one after another.
const MAX_REDIRECTS: u32 = 10;

/// Why there is no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// It is no address, or one with an unsupported scheme.
    #[error(
        "{0:?} is not an address that can be imported from: expected http://host/path or \
         https://host/path"
    )]
    Address(String),
    /// The server has no such file, or refuses it.
    #[error("failed to GET {address} with status {status}")]
    Status {
        /// The address, without a password.
        address: String,
        /// The status and its words.
        status: StatusCode,
    },
    /// There is no connection, or it broke.
    #[error("cannot download {address}: {reason}")]
    Broken {
        /// Without a password.
        address: String,
        /// The cause.
        reason: String,
    },
    /// The file is longer than allowed.
    #[error("cannot download {address}: it has more than the {limit} bytes that are accepted")]
    TooLarge {
        /// Without a password.
        address: String,
        /// The limit in bytes.
        limit: u64,
    },
}

impl DownloadError {
    /// The kind, which determines HTTP status and exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Address(_) | Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::Status { status, .. } if matches!(status.as_u16(), 404 | 410) => {
                ErrorKind::NotFound
            }
            Self::Status { .. } | Self::Broken { .. } => ErrorKind::Unavailable,
        }
    }
}

/// A file that is being read. A server is never trusted: the file ends at a limit, and a
/// connection without data is given up.
#[derive(Debug)]
pub struct Download {
    address: String,
    total: Option<u64>,
    taken: u64,
    limit: u64,
    pace: Pace,
    body: Incoming,
}

impl Client {
    /// Begins to read the file at an address (`http://…`, `https://…`, without either `http://` is
    /// meant), of at most `limit` bytes. User name and password in it are sent to its host only.
    /// Redirects are followed, but not from HTTPS to plain HTTP.
    ///
    /// # Errors
    /// When there is no such file.
    pub async fn download(&self, address: &str, limit: u64) -> Result<Download, DownloadError> {
        let wrong = || DownloadError::Address(without_user(address));
        let text = match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority(&uri).is_empty() {
            return Err(wrong());
        }
        let user = basic(&uri).map_err(|why| DownloadError::Broken {
            address: shown(&uri),
            reason: why.to_owned(),
        })?;
        let first = shown(&uri);
        let mut ask = Ask::new(
            Method::GET,
            first.parse().map_err(|_| wrong())?,
            Asked::File,
        );
        let mut redirects = 0;
        loop {
            ask.headers.clear();
            let own = authority(&ask.uri) == authority(&uri) && ask.uri.scheme() == uri.scheme();
            if let Some(user) = user.as_ref().filter(|_| own) {
                ask = ask.header(header::AUTHORIZATION, user);
            }
            let here = shown(&ask.uri);
            let broken = |reason: String| DownloadError::Broken {
                address: here.clone(),
                reason,
            };
            let response = self.try_send(&ask).await.map_err(|error| match error {
                Attempt::Connect(error) => broken(error.to_string()),
                Attempt::Answer(reason) => broken(reason),
            })?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(broken(format!("more than {MAX_REDIRECTS} redirects")));
                }
                let target = location(&ask.uri, &response)
                    .ok_or_else(|| broken("a redirect without a valid address".to_owned()))?;
                if ask.uri.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
                    return Err(broken(format!(
                        "it redirects from HTTPS to plain HTTP ({})",
                        authority(&target)
                    )));
                }
                if !self.options.may_lead(authority(&uri), authority(&target)) {
                    return Err(broken(format!(
                        "it redirects to this machine itself ({})",
                        authority(&target)
                    )));
                }
                ask.uri = shown(&target)
                    .parse()
                    .map_err(|_| broken("a redirect without a valid address".to_owned()))?;
                continue;
            }
            if !status.is_success() {
                return Err(DownloadError::Status {
                    address: here,
                    status,
                });
            }
            let total = response
                .headers()
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            if total.is_some_and(|total| total > limit) {
                return Err(DownloadError::TooLarge {
                    address: here,
                    limit,
                });
            }
            return Ok(Download {
                address: first,
                total,
                taken: 0,
                limit,
                pace: Pace::new(self.options.deadlines.stall),
                body: response.into_body(),
            });
        }
    }
}

impl Download {
    /// Its address, without a password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its length in bytes, if the server sent it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// How many bytes have arrived.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The next bytes; `None` after the last one.
    ///
    /// # Errors
    /// When the file ends early, or never.
    pub async fn next(&mut self) -> Result<Option<Bytes>, DownloadError> {
        loop {
            let reason = match self.pace.frame(&mut self.body).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    let Ok(piece) = frame.into_data() else {
                        continue;
                    };
                    self.taken += piece.len() as u64;
                    if self.taken > self.limit {
                        return Err(DownloadError::TooLarge {
                            address: self.address.clone(),
                            limit: self.limit,
                        });
                    }
                    return Ok(Some(piece));
                }
                Ok(Some(Err(error))) => format!("the connection broke: {}", chain(&error)),
                Err(stalled) => stalled.to_string(),
            };
            return Err(DownloadError::Broken {
                address: self.address.clone(),
                reason,
            });
        }
    }
}

/// An address without user name and password.
fn shown(uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!(
        "{}://{}{path}",
        uri.scheme_str().unwrap_or_default(),
        authority(uri)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let uri: Uri = "https://user:secret@host:1/a?b=c".parse().unwrap();
        assert_eq!(shown(&uri), "https://host:1/a?b=c");
        assert_eq!(shown(&Uri::from_static("http://host")), "http://host/");
    }
}
