//! Taking a connection over for a raw byte stream.
//!
//! Docker's attach turns the HTTP connection into a bidirectional stream, either after
//! `101 UPGRADED` (when the client asked with `Upgrade: tcp`) or after a bare `200 OK` without
//! any length. An HTTP library upgrades only on the former, so both take one path here: the
//! handler never answers; it hands a [`Takeover`] to whoever drives the connection, who takes the
//! transport back from the HTTP library, writes the head itself and runs the stream.

use futures::future::BoxFuture;
use http::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// The reading half of a connection that was taken over.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half; shutting it down sends end of file and leaves the reading half open.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// What runs on a connection that was taken over.
pub type Session = Box<dyn FnOnce(Reader, Writer) -> BoxFuture<'static, ()> + Send>;

/// The order to stop speaking HTTP on a connection.
pub struct Takeover {
    /// Status line and headers, up to and including the empty line.
    pub head: Vec<u8>,
    /// What runs afterwards; the connection is closed when it ends.
    pub session: Session,
}

/// Through which a handler takes over the connection that its request came on. The driver of the
/// connection puts one into every request's extensions.
#[derive(Clone)]
pub struct Hijacker(mpsc::Sender<Takeover>);

impl Hijacker {
    /// A handle and the end that the connection's driver listens on.
    pub fn new() -> (Self, mpsc::Receiver<Takeover>) {
        // A connection is taken over once.
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Takes the connection over. The handler must not answer afterwards. Returns whether the
    /// connection still exists.
    pub fn take_over(&self, takeover: Takeover) -> bool {
        self.0.try_send(takeover).is_ok()
    }
}

/// The head of the answer that starts a raw stream.
pub fn head(request: &HeaderMap, content_type: &str, common: &HeaderMap) -> Vec<u8> {
    let upgrade = request
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok());
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
    for (name, value) in common {
        out.extend_from_slice(title_case(name.as_str()).as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A header's name as Docker writes it: `Api-Version`. Scripts look for it by this spelling.
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
        let mut request = HeaderMap::new();
        let mut common = HeaderMap::new();
        assert_eq!(
            head(&request, "a/b", &common),
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n"
        );
        request.insert(header::UPGRADE, "tcp".parse().unwrap());
        common.insert("api-version", "1.51".parse().unwrap());
        assert_eq!(
            head(&request, "a/b", &common),
            b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: a/b\r\nApi-Version: 1.51\r\n\r\n"
        );
    }
}
