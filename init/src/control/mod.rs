//! The control socket: one JSON request line, one JSON answer line, end of connection.
//!
//! The types are [`keelson_model::init`]'s. A client that sends nothing, sends too much or does not
//! read only uses one of a few places for a few seconds.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use keelson_model::init::{Request, Response};
use nix::sys::socket::{getsockopt, sockopt};

/// How many clients are served at the same time.
pub(crate) const MOST_CLIENTS: usize = 16;
/// Time for the whole exchange.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest request line in bytes.
const LONGEST_REQUEST: usize = 4096;

/// The listening end.
pub(crate) struct Listener(UnixListener);

impl Listener {
    /// Binds the socket, for root only.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Accepts the next client. `None` if none waits. Clients that are not root are dropped: the
    /// file's mode keeps them out, but the socket may have been passed on or mounted elsewhere.
    pub(crate) fn accept(&self, now: Duration) -> io::Result<Option<Client>> {
        loop {
            let stream = match self.0.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_root = getsockopt(&stream, sockopt::PeerCredentials)
                .is_ok_and(|credentials| credentials.uid() == 0);
            if is_root && stream.set_nonblocking(true).is_ok() {
                return Ok(Some(Client {
                    stream,
                    request: Vec::new(),
                    answer: None,
                    deadline: now + LIMIT,
                }));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a client needs next.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    /// More bytes from it.
    Read,
    /// An answer, see [`Client::answer`].
    Request(Request),
    /// Room for the rest of its answer.
    Write,
    /// Nothing: the connection can be closed.
    Finished,
}

/// A connected client.
pub(crate) struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Option<(Vec<u8>, usize)>,
    /// When it is dropped.
    pub(crate) deadline: Duration,
}

impl Client {
    /// Continues the exchange as far as possible without blocking.
    pub(crate) fn advance(&mut self) -> Progress {
        if self.answer.is_some() {
            return self.write();
        }
        let mut buffer = [0u8; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Progress::Finished,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.request.extend_from_slice(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Finished,
            }
            match parse(&self.request) {
                None => {}
                Some(Ok(request)) => return Progress::Request(request),
                Some(Err(error)) => {
                    let message = error.to_string();
                    return self.answer(&Response::Error { message });
                }
            }
        }
    }

    /// Answers the request.
    pub(crate) fn answer(&mut self, response: &Response) -> Progress {
        let mut line = serde_json::to_vec(response).unwrap_or_default();
        line.push(b'\n');
        self.answer = Some((line, 0));
        self.write()
    }

    fn write(&mut self) -> Progress {
        let Some((line, written)) = &mut self.answer else {
            return Progress::Finished;
        };
        while let Some(rest) = line.get(*written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => break,
                Ok(length) => *written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Write,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Progress::Finished
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Why a request can't be read.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the request is longer than {LONGEST_REQUEST} bytes")]
    TooLong,
    #[error("the request is not valid: {0}")]
    Invalid(#[from] serde_json::Error),
}

/// Reads the bytes that a client has sent until now. `None` if the line is not complete.
fn parse(bytes: &[u8]) -> Option<Result<Request, RequestError>> {
    let line = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => bytes.get(..end).unwrap_or_default(),
        None if bytes.len() > LONGEST_REQUEST => {
            return Some(Err(RequestError::TooLong));
        }
        None => return None,
    };
    Some(serde_json::from_slice(line).map_err(RequestError::from))
}

#[cfg(test)]
mod tests {
    use keelson_model::init::PowerAction;

    use super::*;

    fn connected() -> (tempfile::TempDir, UnixStream, Client) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init.sock");
        let listener = Listener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let client = listener.accept(Duration::ZERO).unwrap().unwrap();
        assert!(listener.accept(Duration::ZERO).unwrap().is_none());
        (directory, stream, client)
    }

    #[test]
    fn a_request_in_pieces_is_answered_in_one_line() {
        let (_directory, mut stream, mut client) = connected();
        assert_eq!(client.advance(), Progress::Read);
        stream.write_all(br#"{"op":"power","#).unwrap();
        assert_eq!(client.advance(), Progress::Read);
        stream.write_all(b"\"action\":\"reboot\"}\n").unwrap();
        let action = PowerAction::Reboot;
        let force = false;
        let request = Request::Power { action, force };
        assert_eq!(client.advance(), Progress::Request(request));
        assert_eq!(client.answer(&Response::Accepted), Progress::Finished);
        drop(client);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "{\"result\":\"accepted\"}\n");
    }

    #[test]
    fn an_invalid_request_gets_an_error() {
        for wrong in [
            &b"\n"[..],
            b"{\"op\":\"power\",\"action\":\"explode\"}\n",
            b"\xff\n",
            &[b'a'; LONGEST_REQUEST + 1],
        ] {
            let (_directory, mut stream, mut client) = connected();
            stream.write_all(wrong).unwrap();
            assert_eq!(client.advance(), Progress::Finished);
            drop(client);
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let response: Response = serde_json::from_str(&answer).unwrap();
            assert!(matches!(response, Response::Error { .. }), "{answer}");
        }
    }

    #[test]
    fn a_client_that_goes_away_is_finished() {
        let (_directory, stream, mut client) = connected();
        drop(stream);
        assert_eq!(client.advance(), Progress::Finished);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
