//! Making answers and reading bodies.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::error::ApiError;
use crate::places::Shortage;

/// The body of an answer. After an error the connection is broken off, so that the client does not
/// take what it has for the whole.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Largest JSON body that is read, in bytes.
const MAX_JSON: usize = 4 << 20;
/// How long a client may take to send a JSON body.
const JSON_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may go on sending after its answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bodies that can't fail.
fn never(error: Infallible) -> io::Error {
    match error {}
}

/// A body that is there already.
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

/// Like [`stream`], of parts whose making can fail.
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

/// A JSON value as one line.
pub fn json_line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.extend_from_slice(b"\r\n");
    Bytes::from(line)
}

/// Goes on reading what a client sends with a request that is answered before its end: a connection
/// that ends while the client still writes is a broken pipe there, and the answer is lost.
pub fn drain(mut body: impl AsyncRead + Send + Unpin + 'static) {
    tokio::spawn(async move {
        // A client that needs longer has to do without the answer.
        let mut sink = tokio::io::sink();
        let read = tokio::io::copy(&mut body, &mut sink);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, read).await;
    });
}

/// A request's body as a byte stream.
pub fn reader(body: Incoming) -> impl AsyncRead + Send + Unpin + 'static {
    StreamReader::new(BodyDataStream::new(body).map_err(io::Error::other))
}

/// How often it is looked how long nothing has come.
const TICK: Duration = Duration::from_secs(1);

/// Like [`reader`]; fails when nothing comes for longer than `shortage` has patience. The work that
/// reads it holds threads meanwhile.
pub(crate) fn paced_reader(
    body: Incoming,
    shortage: Shortage,
) -> impl AsyncRead + Send + Unpin + 'static {
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
                            "the client sends nothing any more",
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

/// Reads a JSON body. `None`: the body is empty.
///
/// # Errors
/// InvalidInput naming the field when the body is no such document or too large.
pub async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<Option<T>, ApiError> {
    let collected = tokio::time::timeout(JSON_TIMEOUT, Limited::new(body, MAX_JSON).collect())
        .await
        .map_err(|_| ApiError::invalid("the request's body did not arrive in time"))?
        .map_err(|e| ApiError::invalid(format!("the request's body can't be read: {e}")))?
        .to_bytes();
    if collected.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let mut reader = serde_json::Deserializer::from_slice(&collected);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        match path.as_str() {
            "." | "?" => ApiError::invalid(format!("invalid JSON in the request's body: {cause}")),
            _ => ApiError::invalid(format!("invalid value for {path}: {cause}")),
        }
    })?;
    reader
        .end()
        .map_err(|e| ApiError::invalid(format!("invalid JSON in the request's body: {e}")))?;
    Ok(Some(value))
}
