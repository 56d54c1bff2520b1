//! Accepts request lines as Docker's own clients and `curl -g` write them, with unescaped quotation
//! marks and angle brackets. Docker's server accepts them, but the HTTP library refuses such a
//! request before a handler sees it. So these bytes are percent-encoded before they reach the
//! library.
//!
//! Only the first line of a request is examined, and only such bytes in it are changed. To find where
//! a request begins, this follows the length or the chunks of the body before it. Bytes that it
//! can't follow pass unchanged, and the library judges them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport that escapes the first lines of requests on their way to the HTTP library.
pub(crate) struct RequestLines<S> {
    stream: S,
    state: State,
    /// The part of a head that has been read so far.
    head: Vec<u8>,
    /// Bytes for the reader, before any new ones.
    ready: Vec<u8>,
    /// How many bytes of `ready` the reader has.
    gone: usize,
    max_head: usize,
}

/// The part of a request that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// In a body, with this many bytes left.
    Body(u64),
    /// In a body in chunks.
    Chunks(Chunk),
    /// Bytes pass unexamined from now on.
    Raw,
}

/// The part of a chunked body (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the digits of a chunk's size.
    Size(u64),
    /// After the digits, up to the end of the line.
    Extension(u64),
    /// In a chunk, with this many bytes left.
    Data(u64),
    /// In the line end after a chunk.
    DataEnd,
    /// In the trailer. True: the present line is not empty.
    Trailer(bool),
}

impl<S> RequestLines<S> {
    /// Heads longer than `max_head` bytes pass unchanged.
    pub(crate) fn new(stream: S, max_head: usize) -> Self {
        Self {
            stream,
            state: State::Head,
            head: Vec::new(),
            ready: Vec::new(),
            gone: 0,
            max_head,
        }
    }

    /// Returns the transport, and the bytes from it that the reader has not got.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        let mut rest = self.ready;
        rest.drain(..self.gone);
        rest.extend(self.head);
        (self.stream, rest)
    }

    /// Takes bytes that are not all part of a body.
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if self.state != State::Head {
                let (body, rest) = bytes.split_at(self.state.body(bytes));
                self.ready.extend_from_slice(body);
                bytes = rest;
                continue;
            }
            bytes = rest;
            // Empty lines before a request are allowed and belong to no head.
            if self.head.is_empty() && b"\r\n".contains(byte) {
                self.ready.push(*byte);
                continue;
            }
            self.head.push(*byte);
            // Lines end with or without `\r`. An empty line ends the head.
            if self.head.ends_with(b"\n\n") || self.head.ends_with(b"\n\r\n") {
                let head = std::mem::take(&mut self.head);
                self.state = body_of(&head);
                self.ready.extend(with_plain_line(head));
            } else if self.head.len() > self.max_head {
                self.state = State::Raw;
                self.ready.append(&mut self.head);
            }
        }
    }
}

impl State {
    /// Follows bytes to the end of the body, and returns how many belong to it. When bytes are left,
    /// the state is [`State::Head`].
    fn body(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let fits = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            match self {
                Self::Head => return at,
                Self::Raw => return bytes.len(),
                Self::Body(left) => {
                    let taken = fits(*left);
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        *self = Self::Head;
                    }
                }
                Self::Chunks(Chunk::Data(left)) => {
                    let taken = fits(*left);
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        *self = Self::Chunks(Chunk::DataEnd);
                    }
                }
                Self::Chunks(chunk) => {
                    *self = match rest.first() {
                        Some(byte) => chunk.next(*byte),
                        None => *self,
                    };
                    at += 1;
                }
            }
        }
        at
    }
}

impl Chunk {
    /// The state after a byte that is not data.
    fn next(self, byte: u8) -> State {
        State::Chunks(match (self, byte) {
            (Self::Size(size) | Self::Extension(size), b'\n') => match size {
                0 => Self::Trailer(false),
                size => Self::Data(size),
            },
            (Self::Size(size), byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                match size.checked_mul(16) {
                    Some(size) => Self::Size(size | u64::from(digit)),
                    None => return State::Raw,
                }
            }
            (Self::Size(size) | Self::Extension(size), _) => Self::Extension(size),
            (Self::DataEnd, b'\n') => Self::Size(0),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::Trailer(false), b'\n') => return State::Head,
            (Self::Trailer(_), b'\n') => Self::Trailer(false),
            (Self::Trailer(any), b'\r') => Self::Trailer(any),
            (Self::Trailer(_), _) => Self::Trailer(true),
            (Self::DataEnd | Self::Data(_), _) => return State::Raw,
        })
    }
}

/// The body that a head announces.
fn body_of(head: &[u8]) -> State {
    let mut length = 0;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return State::Chunks(Chunk::Size(0));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value).ok();
            match text.and_then(|text| text.parse().ok()) {
                Some(number) => length = number,
                None => return State::Raw,
            }
        }
    }
    match length {
        0 => State::Head,
        length => State::Body(length),
    }
}

/// The head, with those bytes of its first line percent-encoded that the library would refuse.
fn with_plain_line(head: Vec<u8>) -> Vec<u8> {
    let end = head.iter().position(|byte| *byte == b'\n');
    let line = head.get(..end.unwrap_or(head.len())).unwrap_or_default();
    let refused = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | b'`' | b'#' | 0x80..);
    if !line.iter().any(refused) {
        return head;
    }
    let mut plain = Vec::with_capacity(head.len() + 64);
    for byte in line {
        match refused(byte) {
            true => plain.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            false => plain.push(*byte),
        }
    }
    plain.extend_from_slice(head.get(line.len()..).unwrap_or_default());
    plain
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestLines<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let waiting = this.ready.get(this.gone..).unwrap_or_default();
            if !waiting.is_empty() {
                let now = waiting.len().min(buffer.remaining());
                buffer.put_slice(waiting.get(..now).unwrap_or_default());
                this.gone += now;
                if this.gone == this.ready.len() {
                    (this.ready, this.gone) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let new = buffer.filled().get(before..).unwrap_or_default();
            if new.is_empty() {
                // The end: the library judges an incomplete head.
                this.state = State::Raw;
                this.ready.append(&mut this.head);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            // Bytes of a body stay in the reader's buffer.
            let body = this.state.body(new);
            let head = new.get(body..).unwrap_or_default().to_vec();
            buffer.set_filled(before + body);
            this.take(&head);
            if body > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RequestLines<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
