//! HTTP within limits of time and bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::resources::shown;

/// Longest wait for one answer.
const ONE_TRY: Duration = Duration::from_secs(10);
/// Pauses between tries: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Most redirects that are followed.
const REDIRECTS: u32 = 5;
/// Where distributions keep the authorities that they trust.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why there is no answer. Texts hold no header and no query: they may be secrets.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody answers in time.
    #[error("{url}: no answer in time")]
    TimedOut {
        /// Which one.
        url: String,
    },
    /// The connection fails.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Which one.
        url: String,
        /// Why.
        reason: String,
    },
    /// The answer is too long.
    #[error("{url}: the answer has more than {limit} bytes")]
    TooLarge {
        /// Which one.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// The answer makes no sense, or redirects without end.
    #[error("{url}: {reason}")]
    Invalid {
        /// Which one.
        url: String,
        /// Why.
        reason: String,
    },
    /// The server refuses.
    #[error("{url}: the server answers {status}")]
    Status {
        /// Which one.
        url: String,
        /// HTTP status.
        status: u16,
    },
}

impl FetchError {
    /// Whether a later try may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Unreachable { .. } => true,
            Self::TooLarge { .. } | Self::Invalid { .. } => false,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
        }
    }
}

/// A request.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Where to.
    pub url: &'a str,
    /// What to do.
    pub method: Method<'a>,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Longest answer, in bytes.
    pub limit: usize,
    /// Whether redirects are followed. Metadata services have none, and a redirect would send the
    /// token elsewhere.
    pub redirects: bool,
}

/// What a request does.
#[derive(Debug, Clone, Copy)]
pub enum Method<'a> {
    /// GET.
    Get,
    /// PUT without a body.
    Put,
    /// POST of a document with its type.
    Post(&'a str, &'a str),
}

impl<'a> Ask<'a> {
    /// A plain GET of a metadata service.
    #[must_use]
    pub fn get(url: &'a str, headers: &'a [(&'a str, &'a str)], limit: usize) -> Self {
        Self {
            url,
            method: Method::Get,
            headers,
            limit,
            redirects: false,
        }
    }
}

/// Makes requests until a deadline.
#[derive(Debug, Clone)]
pub struct Fetcher {
    deadline: Instant,
    bundles: Vec<PathBuf>,
}

impl Fetcher {
    /// One that gives up after `time`.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            bundles: BUNDLES.iter().map(PathBuf::from).collect(),
        }
    }

    /// The same with another end.
    #[must_use]
    pub fn until(&self, time: Duration) -> Self {
        Self {
            deadline: self.deadline.min(Instant::now() + time),
            bundles: self.bundles.clone(),
        }
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// One try.
    ///
    /// # Errors
    /// [`FetchError`]; statuses from 300 on are errors.
    pub fn once(&self, ask: Ask<'_>) -> Result<Vec<u8>, FetchError> {
        let time = self.left().min(ONE_TRY);
        if time.is_zero() {
            return Err(FetchError::TimedOut {
                url: shown(ask.url),
            });
        }
        let secure = ask.url.starts_with("https:");
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect from https to http would give away what the author wanted to protect.
            .https_only(secure)
            .proxy(None)
            .max_redirects(if ask.redirects { REDIRECTS } else { 0 })
            .max_redirects_will_error(ask.redirects)
            .user_agent("keelson-provision")
            .max_response_header_size(64 << 10)
            .timeout_global(Some(time));
        if secure || ask.redirects {
            config = config.tls_config(self.tls());
        }
        let agent = ureq::Agent::new_with_config(config.build());
        let result = match ask.method {
            Method::Get => with(agent.get(ask.url), ask.headers).call(),
            Method::Put => with(agent.put(ask.url), ask.headers).send_empty(),
            Method::Post(kind, body) => {
                with(agent.post(ask.url).content_type(kind), ask.headers).send(body)
            }
        };
        let mut answer = result.map_err(|error| failed(error, &ask))?;
        let status = answer.status().as_u16();
        if status >= 300 {
            return Err(FetchError::Status {
                url: shown(ask.url),
                status,
            });
        }
        answer
            .body_mut()
            .with_config()
            .limit(ask.limit as u64)
            .read_to_vec()
            .map_err(|error| failed(error, &ask))
    }

    /// Tries again after failures that may pass, until the deadline. `more` names further statuses
    /// that may pass.
    ///
    /// # Errors
    /// [`FetchError`]: the last one.
    pub fn patiently(&self, ask: Ask<'_>, more: &[u16]) -> Result<Vec<u8>, FetchError> {
        let (mut pause, longest) = PAUSES;
        loop {
            let error = match self.once(ask) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let passes = match &error {
                FetchError::Status { status, .. } if more.contains(status) => true,
                error => error.may_pass(),
            };
            if !passes || self.left() <= pause {
                return Err(error);
            }
            tracing::debug!(%error, "trying again");
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    /// A GET for which 404 is a good answer.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn optional(&self, ask: Ask<'_>) -> Result<Option<Vec<u8>>, FetchError> {
        match self.patiently(ask, &[]) {
            Ok(answer) => Ok(Some(answer)),
            Err(FetchError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tls(&self) -> TlsConfig {
        let text = self
            .bundles
            .iter()
            .find_map(|path| std::fs::read(path).ok());
        let roots: Vec<Certificate<'static>> =
            CertificateDer::pem_slice_iter(&text.unwrap_or_default())
                .flatten()
                .map(|der| Certificate::from_der(&der).to_owned())
                .collect();
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build()
    }
}

fn with<B>(
    mut request: ureq::RequestBuilder<B>,
    headers: &[(&str, &str)],
) -> ureq::RequestBuilder<B> {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}

fn failed(error: ureq::Error, ask: &Ask<'_>) -> FetchError {
    let url = shown(ask.url);
    match error {
        ureq::Error::Timeout(_) => FetchError::TimedOut { url },
        ureq::Error::BodyExceedsLimit(_) => FetchError::TooLarge {
            url,
            limit: ask.limit,
        },
        ureq::Error::HostNotFound => FetchError::Unreachable {
            url,
            reason: "the host is not found".to_owned(),
        },
        ureq::Error::ConnectionFailed => FetchError::Unreachable {
            url,
            reason: "the connection fails".to_owned(),
        },
        ureq::Error::Io(error) => FetchError::Unreachable {
            url,
            reason: error.to_string(),
        },
        error => FetchError::Invalid {
            url,
            reason: error.to_string(),
        },
    }
}
