//! Makes answers and reads bodies.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use keelson_model::error::ErrorKind;
use keelson_model::json::{Json, JsonError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::error::Failure;
use crate::places::Shortage;

/// The body of an answer. An error breaks the connection, so that the client does not take a part
/// for the whole.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long a client may take to send a document.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies of more bytes, and those of unknown size, count as large.
const LARGE: u64 = 64 << 10;
/// How long a client may continue to send after its answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The error of a body that can't fail.
fn never(error: Infallible) -> io::Error {
    match error {}
}

/// A body that is complete.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(never).boxed_unsync()
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(never).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// An answer with bytes.
pub fn bytes(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer with a JSON document.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            bytes(status, "application/json", text)
        }
        Err(error) => {
            tracing::error!(%error, "answer can't be written as JSON");
            bytes(
                StatusCode::INTERNAL_SERVER_ERROR,
                "application/json",
                b"{\"message\":\"the answer can't be written as JSON\"}\n".to_vec(),
            )
        }
    }
}

/// An answer of status 200 whose body is made while it is sent.
pub fn stream(
    content_type: &'static str,
    parts: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    try_stream(content_type, parts.map(Ok))
}

/// Like [`stream`], for parts that can fail.
pub fn try_stream(
    content_type: &'static str,
    parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let frames = parts.map(|part| part.map(Frame::data));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON value as one line, ended by CR LF.
pub fn json_line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    Bytes::from(line)
}

/// Reads and drops the rest of a request that is answered early. A client that still writes when the
/// connection ends gets a broken pipe, and loses the answer.
pub fn drain(mut body: impl AsyncRead + Send + Unpin + 'static) {
    tokio::spawn(async move {
        // A client that needs longer loses the answer.
        let mut sink = tokio::io::sink();
        let read = tokio::io::copy(&mut body, &mut sink);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
    });
}

/// A request's body as a byte stream.
pub fn reader(body: Incoming) -> impl AsyncRead + Send + Unpin + 'static {
    StreamReader::new(BodyDataStream::new(body).map_err(io::Error::other))
}

/// How often a reader checks how long it has waited.
const TICK: Duration = Duration::from_secs(1);

/// Like [`reader`], but fails when nothing arrives for longer than the patience of `shortage`: the
/// work that reads holds threads meanwhile.
pub fn paced_reader(body: Incoming, shortage: Shortage) -> impl AsyncRead + Send + Unpin + 'static {
    let pieces = stream::unfold(
        (BodyDataStream::new(body), shortage),
        |(mut pieces, shortage)| async move {
            let before = Instant::now();
            let piece = loop {
                match tokio::time::timeout(TICK, pieces.next()).await {
                    Ok(piece) => break piece?.map_err(io::Error::other),
                    Err(_) if before.elapsed() >= shortage.patience() => {
                        break Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the client has stopped sending",
                        ));
                    }
                    Err(_) => {}
                }
            };
            Some((piece, (pieces, shortage)))
        },
    );
    StreamReader::new(Box::pin(pieces))
}

/// Whether a body is large, or may be.
pub fn is_large(body: &Incoming) -> bool {
    body.size_hint().upper().is_none_or(|size| size > LARGE)
}

/// Reads a body as a whole: at most `most` bytes, within 30 seconds.
///
/// # Errors
/// `InvalidInput`: the body is larger, arrives too late, or ends early.
pub async fn read_bytes(body: Incoming, most: usize) -> Result<Bytes, Failure> {
    let collected = tokio::time::timeout(DOCUMENT_TIMEOUT, Limited::new(body, most).collect())
        .await
        .map_err(|_| Failure::invalid("the request's body did not arrive in time"))?
        .map_err(|e| Failure::invalid(format!("the request's body can't be read: {e}")))?;
    Ok(collected.to_bytes())
}

/// Reads a JSON body leniently (see [`keelson_model::json`]). `None`: the body is empty.
///
/// # Errors
/// `InvalidInput`, naming the member: the body is no such document, is larger than `most` bytes, or
/// has another content type than JSON.
pub async fn read_json<T: DeserializeOwned>(
    request: Request<Incoming>,
    most: usize,
) -> Result<Option<T>, Failure> {
    let document = read_document(request, most).await?;
    document.map(T::deserialize).transpose().map_err(wrong_json)
}

/// Like [`read_json`], for a document that no single type describes.
///
/// # Errors
/// As for [`read_json`].
pub async fn read_document(
    request: Request<Incoming>,
    most: usize,
) -> Result<Option<Json>, Failure> {
    let (head, body) = request.into_parts();
    let is_empty = body.is_end_stream();
    if let Err(error) = check_content_type(&head.headers, is_empty) {
        drain(reader(body));
        return Err(error);
    }
    if is_empty {
        return Ok(None);
    }
    let collected = read_bytes(body, most).await?;
    if collected.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::invalid(
            "invalid JSON: got EOF while reading request body",
        ));
    }
    Json::parse(&collected).map(Some).map_err(wrong_json)
}

/// The failure to report for a wrong document.
pub fn wrong_json(error: JsonError) -> Failure {
    match error.path() {
        "" => Failure::invalid(format!("invalid JSON: {}", error.message())),
        path => Failure::invalid(format!("invalid value for {path}: {}", error.message())),
    }
}

/// A body must have the content type JSON. An empty one needs none.
fn check_content_type(headers: &HeaderMap, is_empty: bool) -> Result<(), Failure> {
    let text = match headers.get(header::CONTENT_TYPE) {
        None if is_empty => return Ok(()),
        None => "",
        Some(value) => value.to_str().unwrap_or("?"),
    };
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.is_empty() {
        return Err(Failure::invalid(format!(
            "malformed Content-Type header ({text}): mime: no media type"
        )));
    }
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(Failure::invalid(format!(
            "unsupported Content-Type header ({text}): must be 'application/json'"
        ))),
    }
}

impl Failure {
    /// The HTTP answer: the one place where failures become one.
    pub fn into_response(self) -> Response<Body> {
        let status = StatusCode::from_u16(self.kind().http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.kind() == ErrorKind::Internal {
            tracing::error!(error = %self, "request failed");
        }
        if status == StatusCode::NOT_MODIFIED {
            return empty(status);
        }
        json(status, &json!({ "message": self.to_string() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_read() {
        let check = |text: Option<&'static str>, is_empty: bool| {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            }
            check_content_type(&headers, is_empty).map_err(|error| error.to_string())
        };
        assert_eq!(check(None, true), Ok(()));
        assert_eq!(check(Some("application/json"), false), Ok(()));
        assert_eq!(
            check(Some("Application/JSON ; charset=utf-8"), true),
            Ok(())
        );
        assert!(check(None, false).unwrap_err().contains("malformed"));
        assert!(check(Some(""), true).unwrap_err().contains("malformed"));
        for text in ["text/plain", "application/x-www-form-urlencoded", "json"] {
            let wanted =
                format!("unsupported Content-Type header ({text}): must be 'application/json'");
            assert_eq!(check(Some(text), true), Err(wanted));
        }
    }
}
