//! Requests: deadlines, retries with back-off, bounded answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use keelson_model::json::{self, lenient, lenient_list};
use serde::Deserialize;

use crate::asked::Asked;
use crate::body::Pace;
use crate::connect::{ConnectError, Connector};
use crate::error::{Missing, RegistryError};
use crate::options::RegistryOptions;
use crate::tls::Trust;
use crate::uri::authority;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(15);
/// How often a failing connection is tried.
const CONNECT_ATTEMPTS: u32 = 2;
/// Longest text of an error that is read, in bytes.
const MAX_ERROR: usize = 16 << 10;

/// A client of any number of registries. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) options: Arc<RegistryOptions>,
    http: HttpClient<Connector, Body>,
}

/// A request that can be sent more than once.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub what: Asked,
}

impl Ask {
    pub(crate) fn new(method: Method, uri: Uri, what: Asked) -> Self {
        Self {
            method,
            uri,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            what,
        }
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

/// Why one attempt has failed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// No connection.
    Connect(ConnectError),
    /// No answer.
    Answer(String),
}

impl Client {
    /// A client with these settings.
    pub fn new(options: RegistryOptions) -> Self {
        let options = Arc::new(options);
        let connector = Connector {
            options: Arc::clone(&options),
            trust: Arc::new(Trust::default()),
        };
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(4)
            .build(connector);
        Self { options, http }
    }

    /// The settings.
    pub fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// Sends a request once and waits, at most `limit`, for the head of the answer.
    pub(crate) async fn send_once(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
        limit: Duration,
    ) -> Result<Response<Incoming>, Attempt> {
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        if let Ok(agent) = HeaderValue::from_str(&self.options.user_agent) {
            request.headers_mut().insert(header::USER_AGENT, agent);
        }
        match tokio::time::timeout(limit, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(Attempt::Answer(format!(
                "no answer within {} s",
                limit.as_secs_f32()
            ))),
        }
    }

    /// Sends a request until there is a final answer: connection errors, 429 and 5xx are retried.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<Response<Incoming>, RegistryError> {
        self.try_send(ask)
            .await
            .map_err(|error| unreachable(&ask.uri, error))
    }

    /// Like [`Self::send`], with the reason in detail.
    pub(crate) async fn try_send(&self, ask: &Ask) -> Result<Response<Incoming>, Attempt> {
        let deadlines = self.options.deadlines;
        let mut tried = 0;
        loop {
            tried += 1;
            let body = Full::new(ask.body.clone())
                .map_err(|never| match never {})
                .boxed_unsync();
            let outcome = self
                .send_once(&ask.method, &ask.uri, &ask.headers, body, deadlines.answer)
                .await;
            let wait = match &outcome {
                Ok(response) if retryable(response.status()) => retry_after(response.headers()),
                Ok(_) => return outcome,
                Err(Attempt::Connect(
                    ConnectError::Setup(_) | ConnectError::NotTls | ConnectError::Refused,
                )) => return outcome,
                // An unknown name, or a host that does not answer: a retry a moment later rarely
                // helps.
                Err(Attempt::Connect(_)) if tried >= CONNECT_ATTEMPTS => return outcome,
                Err(_) => None,
            };
            if tried >= deadlines.attempts {
                return outcome;
            }
            tracing::debug!(what = %ask.what, tried, "request is tried again");
            self.pause(tried, wait).await;
        }
    }

    /// Waits before the next attempt.
    pub(crate) async fn pause(&self, tried: u32, asked: Option<Duration>) {
        let deadlines = self.options.deadlines;
        let factor = 2_u32.saturating_pow(tried.saturating_sub(1));
        let wait = asked.unwrap_or_else(|| deadlines.back_off.saturating_mul(factor));
        tokio::time::sleep(wait.min(deadlines.longest_wait)).await;
    }

    /// Reads a body to its end, up to a limit.
    pub(crate) async fn read(
        &self,
        response: Response<Incoming>,
        limit: u64,
        ask: &Ask,
    ) -> Result<Vec<u8>, RegistryError> {
        let host = authority(&ask.uri).to_owned();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        let mut pace = Pace::new(self.options.deadlines.stall);
        loop {
            let reason = match pace.frame(&mut body).await {
                Ok(None) => return Ok(bytes),
                Ok(Some(Ok(frame))) => {
                    let Some(data) = frame.data_ref() else {
                        continue;
                    };
                    if (bytes.len() + data.len()) as u64 > limit {
                        return Err(RegistryError::Protocol {
                            host,
                            what: ask.what.clone(),
                            reason: format!("it is larger than the {limit} bytes accepted"),
                        });
                    }
                    bytes.extend_from_slice(data);
                    continue;
                }
                Ok(Some(Err(error))) => format!("the connection broke: {}", chain(&error)),
                Err(stalled) => stalled.to_string(),
            };
            return Err(RegistryError::Unreachable {
                host,
                reason: format!("{}: {reason}", ask.what),
            });
        }
    }

    /// The error for a response's status.
    pub(crate) async fn refusal(&self, response: Response<Incoming>, ask: &Ask) -> RegistryError {
        let status = response.status();
        let host = authority(&ask.uri).to_owned();
        let what = ask.what.clone();
        let said = self.said(response).await;
        let missing = match &said {
            None => Missing::Unsaid,
            Some(said) if said.code.as_deref() == Some(NAME_UNKNOWN) => Missing::Repository,
            Some(_) => Missing::Object,
        };
        let reason = said.map_or_else(|| status.to_string(), |said| said.text);
        match status.as_u16() {
            401 | 403 => RegistryError::Denied { host, reason },
            404 => RegistryError::NotFound {
                host,
                what,
                missing,
                reason,
            },
            429 => RegistryError::Unreachable {
                host,
                reason: format!("too many requests: {reason}; wait, or log in"),
            },
            status => RegistryError::Status {
                host,
                what,
                status,
                reason,
            },
        }
    }

    /// The first error in a body (OCI distribution specification, "Error codes").
    async fn said(&self, response: Response<Incoming>) -> Option<Said> {
        let body = http_body_util::Limited::new(response.into_body(), MAX_ERROR).collect();
        let Ok(Ok(body)) = tokio::time::timeout(self.options.deadlines.stall, body).await else {
            return None;
        };
        parse_error(&body.to_bytes())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorDocument {
    #[serde(deserialize_with = "lenient_list")]
    errors: Vec<ErrorMembers>,
    #[serde(deserialize_with = "lenient")]
    details: String,
    #[serde(deserialize_with = "lenient")]
    error_description: String,
    #[serde(deserialize_with = "lenient")]
    message: String,
    #[serde(deserialize_with = "lenient")]
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorMembers {
    #[serde(deserialize_with = "lenient")]
    code: String,
    #[serde(deserialize_with = "lenient")]
    message: String,
}

/// The code of a missing repository (OCI distribution specification), as in [`Said`].
const NAME_UNKNOWN: &str = "name unknown";

/// A registry's own words about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// The code in plain words: `name unknown`.
    pub code: Option<String>,
    /// `code: message`.
    pub text: String,
}

/// Reads a registry's error document.
pub(crate) fn parse_error(body: &[u8]) -> Option<Said> {
    let document: ErrorDocument = json::from_slice(body).ok()?;
    let text = |value: &str| {
        // It is shown on terminals, so control characters are removed.
        let clean: String = value
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect();
        (!clean.is_empty()).then_some(clean)
    };
    let said = |error: &ErrorMembers| !error.code.is_empty() || !error.message.is_empty();
    let Some(error) = document.errors.into_iter().find(said) else {
        // Token services have other formats.
        let words = [
            document.details,
            document.error_description,
            document.message,
            document.error,
        ];
        let text = words.iter().find_map(|words| text(words))?;
        return Some(Said { code: None, text });
    };
    let code = text(&error.code).map(|code| code.to_ascii_lowercase().replace('_', " "));
    let text = match (&code, text(&error.message)) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (code, message) => code.clone().or(message)?,
    };
    Some(Said { code, text })
}

pub(crate) fn retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let left = until.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(left).unwrap_or_default())
}

fn failure(error: &hyper_util::client::legacy::Error) -> Attempt {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(connect) = cause.downcast_ref::<ConnectError>() {
            return Attempt::Connect(match connect {
                ConnectError::NotTls => ConnectError::NotTls,
                ConnectError::Refused => ConnectError::Refused,
                ConnectError::Setup(text) => ConnectError::Setup(text.clone()),
                ConnectError::Failed(text) => ConnectError::Failed(text.clone()),
            });
        }
        source = cause.source();
    }
    Attempt::Answer(chain(error))
}

pub(crate) fn unreachable(uri: &Uri, error: Attempt) -> RegistryError {
    let host = authority(uri).to_owned();
    let reason = match error {
        Attempt::Connect(error) => error.to_string(),
        Attempt::Answer(reason) => reason,
    };
    RegistryError::Unreachable { host, reason }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_registries_are_read() {
        let body =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest\u001b unknown"}]}"#;
        assert_eq!(
            parse_error(body).map(|said| said.text).as_deref(),
            Some("manifest unknown: manifest unknown")
        );
        for (odd, text) in [
            (
                r#"{"Errors":[null,{"Code":"DENIED","message":null}]}"#,
                "denied",
            ),
            (
                r#"{"errors":[{"code":7,"message":"no","detail":{"x":[]}}]}"#,
                "no",
            ),
            (
                r#"{"errors":null,"details":"incorrect password"}"#,
                "incorrect password",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"expired"}"#,
                "expired",
            ),
            (r#"{"error":{"code":1},"message":"gone"}"#, "gone"),
        ] {
            assert_eq!(
                parse_error(odd.as_bytes()).map(|said| said.text).as_deref(),
                Some(text),
                "{odd}"
            );
        }
        for other in [&b""[..], b"<html>", b"{\"errors\":[]}", b"{\"errors\":{}}"] {
            assert_eq!(parse_error(other), None);
        }
    }

    #[test]
    fn waits_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("Fri, 31 Dec"));
        assert_eq!(retry_after(&headers), None);
        let past = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert(header::RETRY_AFTER, past);
        assert_eq!(retry_after(&headers), Some(Duration::ZERO));
        let later = HeaderValue::from_static("Fri, 31 Dec 2100 23:59:59 GMT");
        headers.insert(header::RETRY_AFTER, later);
        assert!(retry_after(&headers) > Some(Duration::from_secs(1000)));
    }
}
