//! `GET /containers/{id}/attach/ws`: a container's streams over a WebSocket (RFC 6455).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use hostd_containers::{AttachOptions, Attached};
use http::{HeaderMap, Response, header};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncWrite, AsyncWriteExt, Join};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::detach::DetachKeys;
use crate::error::ApiError;
use crate::hijack::{Reader, Session, Takeover, Writer};
use crate::places::Kind;
use crate::reply::Body;
use crate::version::ApiVersion;
use crate::{Api, Call};

/// By this a server shows that it knows WebSockets (RFC 6455, section 1.3).
const SERVER: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest message of a client, and longest frame, in bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of output that wait for a slow client.
const OUTPUT: usize = 256 << 10;
/// How long a client may take to end the connection in order.
const CLOSE_TIME: std::time::Duration = std::time::Duration::from_secs(5);

type Socket = WebSocketStream<Join<Reader, Writer>>;

/// The answer to the client's key, when the request asks for a WebSocket.
fn accept_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        words.any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err(ApiError::invalid(
            "this is no request for a WebSocket: the headers Connection and Upgrade are missing",
        ));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::invalid(
            "Sec-WebSocket-Version must be 13, which is the only version",
        ));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| ApiError::invalid("the header Sec-WebSocket-Key is missing"))?;
    let digest = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(SERVER)
        .finalize();
    Ok(STANDARD.encode(digest))
}

pub(crate) async fn attach(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let query = &call.query;
    // Older clients get all streams.
    let all = call.version < ApiVersion::new(1, 42);
    let options = AttachOptions {
        stdin: all || query.flag("stdin"),
        stdout: all || query.flag("stdout"),
        stderr: all || query.flag("stderr"),
        stream: query.flag("stream"),
        logs: query.flag("logs"),
    };
    let keys = DetachKeys::parse(query.get("detachKeys"))?;
    let accept = accept_key(call.request.headers())?;
    let hijacker = super::streams::hijacker(&call)?;
    let place = api.place(Kind::Follow, call.role).await?;
    let attached = api.containers().attach(&call.name, options).await?;
    let text = call.version < ApiVersion::new(1, 28);
    let session: Session = Box::new(move |reader, writer| {
        async move {
            session(attached, keys, text, reader, writer).await;
            drop(place);
        }
        .boxed()
    });
    let common = api.common_headers();
    hijacker.take_over(Takeover::websocket(&accept, common, session));
    // The connection's driver drops this future when it takes the connection over.
    futures::future::pending().await
}

async fn session(attached: Attached, keys: DetachKeys, text: bool, reader: Reader, writer: Writer) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .write_buffer_size(0)
        .max_write_buffer_size(OUTPUT);
    let transport = tokio::io::join(reader, writer);
    let socket = WebSocketStream::from_raw_socket(transport, Role::Server, Some(config)).await;
    let (mut sink, incoming) = socket.split();
    let Attached {
        input,
        mut output,
        tty,
    } = attached;
    let keys = tty.then_some(keys);
    {
        let outgoing = async {
            let mut rest = BytesMut::new();
            while let Some(frame) = output.recv().await {
                let message = match text {
                    true => Message::Text(whole_text(&mut rest, &frame.bytes)),
                    false => Message::Binary(frame.bytes),
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        };
        tokio::pin!(outgoing);
        tokio::select! {
            () = &mut outgoing => {}
            () = receive(incoming, input, keys) => {}
        }
    }
    close(sink).await;
}

/// Tells the client that there is no more output, and limits the time for that.
async fn close(mut sink: SplitSink<Socket, Message>) {
    // Fails only when the client is gone, and then nothing is left to do.
    let closing = async {
        let _ = sink.send(Message::Close(None)).await;
        let _ = sink.close().await;
    };
    let _ = tokio::time::timeout(CLOSE_TIME, closing).await;
}

/// Text of output. If output ends within a character, its bytes wait for the next output. Bytes
/// that are not text are replaced.
fn whole_text(rest: &mut BytesMut, bytes: &[u8]) -> Utf8Bytes {
    rest.extend_from_slice(bytes);
    let cut = match std::str::from_utf8(rest) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => rest.len(),
    };
    let now: Bytes = rest.split_to(cut).freeze();
    String::from_utf8_lossy(&now).into_owned().into()
}

/// Passes on what the client sends. Ends when the client leaves: with the key sequence, with a message
/// that closes, or with its connection.
async fn receive(
    mut incoming: SplitStream<Socket>,
    mut input: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    mut keys: Option<DetachKeys>,
) {
    let mut cleaned = Vec::new();
    while let Some(message) = incoming.next().await {
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(_)) | Err(_) => break,
        };
        let Some(to) = &mut input else {
            continue;
        };
        let mut left = false;
        let data = match &mut keys {
            Some(keys) => {
                cleaned.clear();
                left = keys.feed(&data, &mut cleaned);
                cleaned.as_slice()
            }
            None => &data,
        };
        // The container reads no more; what it writes still goes to the client.
        if to.write_all(data).await.is_err() || to.flush().await.is_err() {
            input = None;
        }
        if left {
            return;
        }
    }
    if let Some(mut input) = input {
        // Fails only when the container reads no more.
        let _ = input.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_for_websockets_are_accepted() {
        let mut headers = HeaderMap::new();
        let mut check = |name: &'static str, value: &str| {
            headers.insert(name, value.parse().unwrap());
            accept_key(&headers).map_err(|error| error.to_string())
        };
        assert!(check("upgrade", "WebSocket").is_err());
        assert!(
            check("connection", "keep-alive, Upgrade")
                .unwrap_err()
                .contains("13")
        );
        assert!(
            check("sec-websocket-version", "13")
                .unwrap_err()
                .contains("Key")
        );
        // The example of RFC 6455.
        assert_eq!(
            check("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").unwrap(),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert!(check("sec-websocket-version", "8").is_err());
    }

    #[test]
    fn characters_are_not_cut() {
        let mut rest = BytesMut::new();
        assert_eq!(whole_text(&mut rest, b"a\xc3").as_str(), "a");
        assert_eq!(
            whole_text(&mut rest, b"\xa4\xffb").as_str(),
            "\u{e4}\u{fffd}b"
        );
    }
}
