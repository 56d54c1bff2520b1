//! Attach and logs.

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use hostd_containers::{AttachOptions, Attached, LogQuery, Snapshot, tag_of};
use http::{HeaderMap, Response, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::detach::DetachKeys;
use crate::error::ApiError;
use crate::hijack::{Hijacker, Reader, Session, Takeover, Writer};
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, mux, times};
use keelson_model::error::ErrorKind;

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// The media type of output, as clients of this version know it.
fn media_type(tty: bool, version: ApiVersion) -> &'static str {
    match tty || version < ApiVersion::new(1, 42) {
        true => RAW,
        false => MULTIPLEXED,
    }
}

/// The media type of a stream that takes a connection over. Without an upgrade Docker calls it raw,
/// whatever it carries.
pub(super) fn hijacked_type(headers: &HeaderMap, tty: bool, version: ApiVersion) -> &'static str {
    match headers.contains_key(header::UPGRADE) {
        true => media_type(tty, version),
        false => RAW,
    }
}

pub(crate) async fn attach(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let query = &call.query;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        stream: query.flag("stream"),
        logs: query.flag("logs"),
    };
    let keys = DetachKeys::parse(query.get("detachKeys"))?;
    let hijacker = hijacker(&call)?;
    let place = api.place(Kind::Follow, call.role).await?;
    let attached = api.containers().attach(&call.name, options).await?;
    let tty = attached.tty;
    let session: Session = Box::new(move |reader, writer| {
        async move {
            session(attached, keys, tty, reader, writer).await;
            drop(place);
        }
        .boxed()
    });
    hijacker.take_over(Takeover::new(
        call.request.headers(),
        hijacked_type(call.request.headers(), tty, call.version),
        api.common_headers(),
        session,
    ));
    // The connection's driver drops this future when it takes the connection over.
    futures::future::pending().await
}

/// The handle that takes over the request's connection.
pub(super) fn hijacker(call: &Call) -> Result<Hijacker, ApiError> {
    let found = call.request.extensions().get::<Hijacker>().cloned();
    found.ok_or_else(|| {
        ApiError::new(
            ErrorKind::Internal,
            "this connection can't be taken over for a stream",
        )
    })
}

/// Carries both directions until the output ends, the client leaves, or its connection breaks.
/// `raw`: the client reads the output without frames. Returns true when the client left, by the key
/// sequence or by breaking the connection.
pub(super) async fn session(
    attached: Attached,
    keys: DetachKeys,
    raw: bool,
    reader: Reader,
    mut writer: Writer,
) -> bool {
    let mut left = false;
    let Attached {
        input,
        mut output,
        tty,
    } = attached;
    let keys = tty.then_some(keys);
    let incoming = async move {
        match input {
            Some(input) => copy_input(reader, input, keys).await,
            None => drain(reader).await,
        }
    };
    {
        let outgoing = async {
            while let Some(frame) = output.recv().await {
                let data = mux::frame(frame.stream, frame.bytes, raw);
                if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        };
        tokio::pin!(incoming, outgoing);
        tokio::select! {
            () = &mut outgoing => {}
            end = &mut incoming => {
                // After the end of the input the output continues.
                match end {
                    InputEnd::EndOfFile => outgoing.await,
                    InputEnd::Left => left = true,
                }
            }
        }
    }
    // Fails only when the client is gone, and then nothing is left to do.
    let _ = writer.shutdown().await;
    left
}

#[derive(Debug, PartialEq, Eq)]
enum InputEnd {
    /// The client will send no more but still reads, or the container reads no more.
    EndOfFile,
    /// The client left with the key sequence or its connection broke.
    Left,
}

async fn copy_input(
    mut reader: Reader,
    mut input: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    mut keys: Option<DetachKeys>,
) -> InputEnd {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let mut cleaned = Vec::new();
    loop {
        buffer.clear();
        match reader.read_buf(&mut buffer).await {
            Ok(0) => {
                // Fails only when the container reads no more.
                let _ = input.shutdown().await;
                return InputEnd::EndOfFile;
            }
            Ok(_) => {}
            Err(_) => return InputEnd::Left,
        }
        let mut left = false;
        let data = match &mut keys {
            Some(keys) => {
                cleaned.clear();
                left = keys.feed(&buffer, &mut cleaned);
                cleaned.as_slice()
            }
            None => &buffer,
        };
        if input.write_all(data).await.is_err() || input.flush().await.is_err() {
            return drain(reader).await;
        }
        if left {
            return InputEnd::Left;
        }
    }
}

/// Reads and drops what the client sends.
async fn drain(mut reader: Reader) -> InputEnd {
    let mut buffer = BytesMut::with_capacity(4 << 10);
    loop {
        buffer.clear();
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return InputEnd::EndOfFile,
            Ok(_) => {}
            Err(_) => return InputEnd::Left,
        }
    }
}

/// The text before each line with `details`: names and values in the order of the names, then a
/// space, even if there are none.
fn details(container: &Snapshot) -> String {
    let mut attributes = container
        .spec
        .log
        .marks()
        .map(|marks| marks.attributes.clone())
        .unwrap_or_default();
    let tag = tag_of(container);
    if !tag.is_empty() {
        attributes.insert("tag".to_owned(), tag);
    }
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pairs = attributes.iter();
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    format!("{} ", pairs.join(","))
}

/// Whether several lines may share a frame. SDKs pass frames to their users, who expect single
/// lines. The docker command only separates the streams, and would spend most of its time on small
/// frames.
fn takes_joined_lines(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"Docker-Client/"))
}

pub(crate) async fn logs(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    // 0 is what clients send for "no limit".
    let time = |name| -> Result<Option<u64>, ApiError> {
        Ok(query
            .get(name)
            .map(|text| times::parse(name, text))
            .transpose()?
            .filter(|&time| time != 0))
    };
    let tail = match query.get("tail") {
        None | Some("all") => None,
        // Docker reads what is not a number, and negative numbers, as "all".
        Some(text) => text.parse().ok(),
    };
    let container = api.containers().inspect(&call.name)?;
    let prefix = match query.flag("details") {
        true => details(&container),
        false => String::new(),
    };
    let tty = container.spec.process.terminal.is_some();
    let selection = LogQuery {
        prefix,
        follow: query.flag("follow"),
        stdout,
        stderr,
        since: time("since")?,
        until: time("until")?,
        timestamps: query.flag("timestamps"),
        tail,
        header: (!tty).then_some(|stream, length| mux::header(stream as u8, length)),
        joined: tty || takes_joined_lines(call.request.headers()),
    };
    let place = api.place(Kind::Follow, call.role).await?;
    let logs = api.containers().logs(&call.name, selection).await?;
    let body = logs.records.map(move |part| {
        let _held = &place;
        part.map_or_else(
            |error| {
                tracing::warn!(%error, "log can't be read");
                // Inside a stream Docker reports a failure as text on standard error.
                let text = Bytes::from(format!("Error grabbing logs: {error}\n"));
                mux::frame(2, text, tty)
            },
            |part| part.bytes,
        )
    });
    Ok(reply::stream(media_type(tty, call.version), body))
}
