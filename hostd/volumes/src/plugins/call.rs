//! Sends one request to a plugin: HTTP on a separate connection, limited in bytes and time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::address::Address;
use super::error::CallError;
use super::limits::{LONGEST_ANSWER, LONGEST_HEAD};

/// Most header fields of an answer.
const FIELDS: usize = 64;
/// Longest line before a chunk of an answer, in bytes.
const LONGEST_LINE: usize = 256;
/// Pause before connecting again to a socket whose queue is full.
const PAUSE: Duration = Duration::from_millis(10);

/// The answer of a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Sends a request to a plugin and returns its answer, within a time limit.
pub(super) fn call(
    address: &Address,
    method: &str,
    body: &[u8],
    limit: Duration,
) -> Result<Answer, CallError> {
    let deadline = Instant::now() + limit;
    let asked = || {
        let mut stream = Timed {
            stream: Stream::open(address, deadline)?,
            deadline,
        };
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: localhost\r\n\
             Accept: application/vnd.docker.plugins.v1.2+json\r\n\
             Content-Type: application/vnd.docker.plugins.v1.2+json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(CallError::Io)?;
        stream.write_all(body).map_err(CallError::Io)?;
        read(&mut stream)
    };
    asked().map_err(|error| match error {
        CallError::Io(error) | CallError::Connect(error) if is_late(&error) => {
            CallError::TimedOut(limit.as_secs())
        }
        error => error,
    })
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn late() -> io::Error {
    ErrorKind::TimedOut.into()
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn open(address: &Address, deadline: Instant) -> Result<Self, CallError> {
        let opened = match address {
            Address::Unix(path, _) => open_unix(path, deadline).map(Self::Unix),
            Address::Tcp(address) => {
                let left = deadline.saturating_duration_since(Instant::now());
                TcpStream::connect_timeout(address, left).map(Self::Tcp)
            }
        };
        opened.map_err(CallError::Connect)
    }
}

/// A plain connect to a socket whose queue is full would block forever.
fn open_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(path)?;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => {
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::AGAIN) => return Err(late()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A connection with a deadline, however many bytes come before.
struct Timed {
    stream: Stream,
    deadline: Instant,
}

impl Timed {
    /// Sets how long the next call may take.
    fn arm(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        match &self.stream {
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm()?;
        match &mut self.stream {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm()?;
        match &mut self.stream {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The length of a body.
enum Length {
    Known(usize),
    InParts,
    ToTheEnd,
}

/// Reads an answer.
fn read(from: &mut impl Read) -> Result<Answer, CallError> {
    let mut input = Input {
        from,
        bytes: Vec::new(),
    };
    loop {
        let head = input.head()?;
        let (status, length) = parse_head(&head)?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = match length {
            Length::Known(length) => input.take(length)?,
            Length::InParts => input.parts()?,
            Length::ToTheEnd => input.rest()?,
        };
        return Ok(Answer { status, body });
    }
}

fn parse_head(head: &[u8]) -> Result<(u16, Length), CallError> {
    let malformed = |reason: &str| CallError::Malformed(reason.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed
        .parse(head)
        .map_err(|error| CallError::Malformed(error.to_string()))?;
    let status = parsed.code.ok_or_else(|| malformed("it has no status"))?;
    let mut length = Length::ToTheEnd;
    for field in parsed.headers {
        let value = String::from_utf8_lossy(field.value).trim().to_lowercase();
        match field.name.to_lowercase().as_str() {
            "transfer-encoding" if value == "chunked" => return Ok((status, Length::InParts)),
            "transfer-encoding" => return Err(malformed("its transfer encoding is not supported")),
            "content-length" => {
                let number = value.parse();
                let number =
                    number.map_err(|_| malformed("its content length is no number of bytes"))?;
                length = Length::Known(number);
            }
            _ => {}
        }
    }
    Ok((status, length))
}

/// Bytes that were read and not used yet.
struct Input<'a, R> {
    from: &'a mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Input<'_, R> {
    /// Reads more bytes. False at the end.
    fn more(&mut self) -> Result<bool, CallError> {
        let mut buffer = [0; 4096];
        loop {
            match self.from.read(&mut buffer) {
                Ok(count) => {
                    self.bytes.extend(buffer.iter().take(count));
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CallError::Io(error)),
            }
        }
    }

    fn more_or_broken(&mut self) -> Result<(), CallError> {
        match self.more()? {
            true => Ok(()),
            false => Err(CallError::Malformed("it breaks off".to_owned())),
        }
    }

    /// Takes everything up to and including `end`, which must come within `most` bytes.
    fn until(&mut self, end: &[u8], most: usize) -> Result<Vec<u8>, CallError> {
        loop {
            let at = self
                .bytes
                .windows(end.len())
                .position(|window| window == end);
            match at {
                Some(at) => return Ok(self.bytes.drain(..at + end.len()).collect()),
                None if self.bytes.len() > most => return Err(CallError::TooLong(most)),
                None => self.more_or_broken()?,
            }
        }
    }

    fn head(&mut self) -> Result<Vec<u8>, CallError> {
        self.until(b"\r\n\r\n", LONGEST_HEAD)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, CallError> {
        if length > LONGEST_ANSWER {
            return Err(CallError::TooLong(LONGEST_ANSWER));
        }
        while self.bytes.len() < length {
            self.more_or_broken()?;
        }
        Ok(self.bytes.drain(..length).collect())
    }

    fn parts(&mut self) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n", LONGEST_LINE)?;
            let text = String::from_utf8_lossy(&line);
            let number = text.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(number, 16)
                .map_err(|_| CallError::Malformed("a part of it has no length".to_owned()))?;
            if length == 0 {
                // Trailers say nothing about the body.
                return Ok(body);
            }
            if length > LONGEST_ANSWER - body.len() {
                return Err(CallError::TooLong(LONGEST_ANSWER));
            }
            body.extend(self.take(length)?);
            if self.take(2)? != b"\r\n" {
                return Err(CallError::Malformed("a part of it does not end".to_owned()));
            }
        }
    }

    fn rest(&mut self) -> Result<Vec<u8>, CallError> {
        while self.bytes.len() <= LONGEST_ANSWER {
            if !self.more()? {
                return Ok(std::mem::take(&mut self.bytes));
            }
        }
        Err(CallError::TooLong(LONGEST_ANSWER))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use proptest::prelude::*;

    use super::*;

    /// Returns a few bytes at a time.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.max(1).min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn of(text: &str) -> Result<Answer, String> {
        read(&mut text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn answers_of_every_length_are_read() {
        let body = |text: &str| of(text).map(|answer| String::from_utf8(answer.body).unwrap());
        let known = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}and more";
        assert_eq!(body(known).unwrap(), "{}");
        assert_eq!(
            body("HTTP/1.0 200 OK\r\n\r\n{\"a\":1}").unwrap(),
            "{\"a\":1}"
        );
        let parts = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n";
        assert_eq!(body(parts).unwrap(), "abcde");
        let later = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(of(later).unwrap().status, 500);
    }

    #[test]
    fn wrong_and_endless_answers_are_refused() {
        let long = "x".repeat(LONGEST_ANSWER + 1);
        for (text, reason) in [
            ("", "breaks off"),
            ("hello\r\n\r\n", "invalid"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
                "breaks off",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                "longer",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "not supported",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "no length",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
                "does not end",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
                "longer",
            ),
            (&format!("HTTP/1.1 200 OK\r\n\r\n{long}"), "longer"),
            (&format!("HTTP/1.1 200 OK\r\nA: {long}"), "longer"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(reason), "{text:.80}: {error}");
        }
    }

    #[test]
    fn silent_plugins_cost_a_limited_time() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let address = Address::Unix(path.clone(), None);
        let limit = Duration::from_millis(80);
        let began = Instant::now();
        // It accepts nothing.
        let error = call(&address, "X.Y", b"{}", limit).unwrap_err();
        assert!(matches!(error, CallError::TimedOut(_)), "{error}");
        // Until its queue is full.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let to = SocketAddrUnix::new(&path).unwrap();
        let held: Vec<_> = std::iter::repeat_with(|| {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            connect(&socket, &to).is_ok().then_some(socket)
        })
        .map_while(|socket| socket)
        .take(10_000)
        .collect();
        let error = call(&address, "X.Y", b"{}", limit).unwrap_err();
        assert!(matches!(error, CallError::TimedOut(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
        drop((listener, held));
        let error = call(&address, "X.Y", b"{}", limit).unwrap_err();
        assert!(matches!(error, CallError::Connect(_)), "{error}");
    }

    #[test]
    fn a_slow_answer_is_cut_off() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let dripping = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let limit = Duration::from_millis(100);
        let error = call(&Address::Unix(path, None), "X.Y", b"{}", limit).unwrap_err();
        assert!(matches!(error, CallError::TimedOut(_)), "{error}");
        dripping.join().unwrap();
    }

    proptest! {
        #[test]
        fn arbitrary_answers_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
            let _ = read(&mut Slowly(&bytes, size));
            let mut parts = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            parts.extend(&bytes);
            let _ = read(&mut Slowly(&parts, size));
        }

        #[test]
        fn parts_make_the_whole(body in proptest::collection::vec(any::<u8>(), 0..300), part in 1_usize..50, size in 1_usize..40) {
            let mut sent = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n".to_vec();
            for part in body.chunks(part) {
                sent.extend(format!("{:x}\r\n", part.len()).bytes());
                sent.extend(part);
                sent.extend(b"\r\n");
            }
            sent.extend(b"0\r\n\r\n");
            let read = read(&mut Slowly(&sent, size)).unwrap();
            prop_assert_eq!(read.body, body);
        }
    }
}
