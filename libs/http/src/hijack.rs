//! Taking a connection over for a raw byte stream.
//!
//! Some requests turn their HTTP connection into a bidirectional stream, for example the one that
//! attaches to a terminal. The stream begins after `101 UPGRADED` when the client sent
//! `Upgrade: tcp`, and otherwise after a `200 OK` without a length.
//!
//! The HTTP library can upgrade only after a 101, so both kinds take another path. The handler never
//! answers. It hands a [`Takeover`] to the driver of the connection. The driver takes the transport
//! back from the HTTP library, writes the head and runs the stream.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// The reading half of a connection that was taken over.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half; shutting it down sends end of file and leaves the reading half open.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// What runs on a connection that was taken over.
pub type Session = Box<dyn FnOnce(Reader, Writer) -> BoxFuture<'static, ()> + Send>;

/// A request to the connection's driver: stop speaking HTTP and run this session.
pub struct Takeover {
    /// Status line and headers, up to and including the empty line.
    pub head: Vec<u8>,
    /// What runs afterwards; the connection is closed when it ends.
    pub session: Session,
    status: StatusCode,
}

impl Takeover {
    /// A raw stream. The status is 101 when the `request` headers ask for an upgrade, 200 otherwise.
    /// The `common` headers are added to the head.
    pub fn new(
        request: &HeaderMap,
        content_type: &str,
        common: &HeaderMap,
        session: Session,
    ) -> Self {
        let upgrade = request
            .get(header::UPGRADE)
            .and_then(|value| value.to_str().ok());
        let status = match upgrade {
            Some(_) => StatusCode::SWITCHING_PROTOCOLS,
            None => StatusCode::OK,
        };
        Self {
            head: head(upgrade, content_type, common),
            session,
            status,
        }
    }

    /// A WebSocket, opened with this answer to the client's key.
    pub fn websocket(accept: &str, common: &HeaderMap, session: Session) -> Self {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: ",
        );
        head.extend_from_slice(accept.as_bytes());
        head.extend_from_slice(b"\r\n");
        end_head(&mut head, common);
        Self {
            head,
            session,
            status: StatusCode::SWITCHING_PROTOCOLS,
        }
    }
}

/// A handler's means to take over the connection of its request. The driver of the connection puts
/// one into every request's extensions.
#[derive(Clone)]
pub struct Hijacker {
    sender: mpsc::Sender<Takeover>,
    /// The status in the head; 0: the connection was not taken over.
    status: Arc<AtomicU16>,
}

impl Hijacker {
    /// Returns a handle, and the receiver for the connection's driver.
    pub fn new() -> (Self, mpsc::Receiver<Takeover>) {
        // A connection is taken over once.
        let (sender, receiver) = mpsc::channel(1);
        let status = Arc::default();
        (Self { sender, status }, receiver)
    }

    /// Takes the connection over. The handler must not answer afterwards. Returns whether the
    /// connection still exists.
    pub fn take_over(&self, takeover: Takeover) -> bool {
        // Before the send: afterwards the handler may be dropped at any moment.
        self.status
            .store(takeover.status.as_u16(), Ordering::Relaxed);
        self.sender.try_send(takeover).is_ok()
    }

    /// The status in the head, when the connection was taken over.
    pub(crate) fn taken_over(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.status.load(Ordering::Relaxed)).ok()
    }
}

impl fmt::Debug for Hijacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hijacker").finish_non_exhaustive()
    }
}

/// The head of the answer that starts a raw stream.
fn head(upgrade: Option<&str>, content_type: &str, common: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    match upgrade {
        Some(protocol) => {
            out.extend_from_slice(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: ");
            out.extend_from_slice(protocol.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        None => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
    }
    out.extend_from_slice(b"Content-Type: ");
    out.extend_from_slice(content_type.as_bytes());
    out.extend_from_slice(b"\r\n");
    end_head(&mut out, common);
    out
}

/// The headers of every answer, and the empty line.
fn end_head(out: &mut Vec<u8>, common: &HeaderMap) {
    for (name, value) in common {
        out.extend_from_slice(title_case(name.as_str()).as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// A header's name in the usual spelling, `Api-Version`. Scripts search for it in this form.
fn title_case(name: &str) -> String {
    let mut start = true;
    let upper = |character: char| match std::mem::replace(&mut start, character == '-') {
        true => character.to_ascii_uppercase(),
        false => character,
    };
    name.chars().map(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrade_is_answered_only_when_asked_for() {
        let mut common = HeaderMap::new();
        assert_eq!(
            head(None, "a/b", &common),
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n"
        );
        common.insert("api-version", "1.51".parse().unwrap());
        assert_eq!(
            head(Some("tcp"), "a/b", &common),
            b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: a/b\r\nApi-Version: 1.51\r\n\r\n"
        );
    }
}
