//! One connection to the shim's socket.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use keelson_log::{Next, Reader, Stream};
use keelson_shim_protocol::stream::{self, OutputStream};
use keelson_shim_protocol::{DecodeError, Decoder, Request, Response, encode};
use nix::sys::epoll::EpollFlags;

/// While this many bytes wait to be sent to a client, nothing more is read from the log for it.
const MAX_OUTPUT: usize = 64 * 1024;
/// How many bytes of input are read from a client that is gone: more than a socket holds.
const MAX_LEFT: usize = 1024 * 1024;
/// Longest frame of an attached stream; neighbouring records of a stream share a frame.
const MAX_STREAM_FRAME: usize = 32 * 1024;

/// A connection.
pub(crate) struct Client {
    socket: UnixStream,
    /// It receives requests, and after an attach request input for the process.
    input: Decoder,
    output: Vec<u8>,
    sent: usize,
    /// The client sends nothing any more.
    pub(crate) input_ended: bool,
    /// The connection is broken.
    pub(crate) dead: bool,
    /// The connection closes when the queued bytes have been sent.
    pub(crate) ended: bool,
    /// The events that the event loop waits for on the socket.
    pub(crate) interest: EpollFlags,
    /// The client waits for the container's end and is answered then.
    pub(crate) waiting: bool,
    /// The client waits for an event of an exec session and is answered then.
    pub(crate) pending: Option<Pending>,
    /// The client is attached.
    pub(crate) attached: Option<Attached>,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    /// The execution of the container's command.
    Start,
    /// The end of the hooks after the start, run by this process.
    Started(i32),
    /// The end of this process, which is a call of another runtime.
    Call(i32),
    // These name a session by its number:
    /// The execution of its command.
    ExecStart(u64),
    /// Its end.
    ExecWait(u64),
    /// Its end as a probe. The probe is killed when this client goes away.
    Probe(u64),
}

/// The streams of an attached client.
pub(crate) struct Attached {
    /// Its position in the log. `None` if it receives no output.
    reader: Option<Reader>,
    stdout: bool,
    stderr: bool,
    /// Whether it sends input.
    pub(crate) stdin: bool,
    /// Whether it has sent some.
    pub(crate) wrote: bool,
    /// It has received everything in the log.
    caught_up: bool,
    /// How many records the log had at that time.
    seen: u64,
    /// The exec session, if the client is not attached to the container's first process.
    session: Option<u64>,
}

impl Attached {
    /// A client that sees output from now on. `records`: how many records the log has now.
    pub(crate) fn new(
        reader: Option<Reader>,
        seen: u64,
        [stdin, stdout, stderr]: [bool; 3],
    ) -> Self {
        Self {
            reader,
            stdout,
            stderr,
            stdin,
            wrote: false,
            caught_up: true,
            seen,
            session: None,
        }
    }

    /// A client of an exec session.
    pub(crate) fn to_session(session: u64, streams: [bool; 3]) -> Self {
        Self {
            session: Some(session),
            ..Self::new(None, 0, streams)
        }
    }
}

impl Client {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            input: Decoder::new(),
            output: Vec::new(),
            sent: 0,
            input_ended: false,
            dead: false,
            ended: false,
            interest: EpollFlags::EPOLLIN,
            waiting: false,
            pending: None,
            attached: None,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads the bytes that have arrived, at most one buffer full.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.input_ended = true,
            Ok(length) => self.input.feed(buffer.get(..length).unwrap_or_default()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.dead = true,
        }
    }

    /// Reads the bytes that a client sent before it went away: no more than the kernel keeps for
    /// it.
    pub(crate) fn read_rest(&mut self) {
        while !self.input_ended && !self.dead && self.input.held() < MAX_LEFT {
            let before = self.input.held();
            self.read();
            if self.input.held() == before {
                return;
            }
        }
    }

    /// Whether a complete request has arrived that can be answered now.
    pub(crate) fn has_request(&self) -> bool {
        self.input.is_ready() && self.attached.is_none() && !self.waits() && self.has_room()
    }

    /// The next request, if it has arrived completely.
    pub(crate) fn next_request(&mut self) -> Option<Result<Request, DecodeError>> {
        let request = self.input.take()?;
        if matches!(request, Err(DecodeError::Oversized(_))) {
            // The bytes after this can't be parsed.
            self.input_ended = true;
        }
        Some(request)
    }

    /// All bytes that have arrived: input for the container.
    pub(crate) fn take_input(&mut self) -> Vec<u8> {
        self.input.take_rest()
    }

    /// Queues an answer.
    pub(crate) fn respond(&mut self, response: &Response) {
        if encode(response, &mut self.output).is_err() {
            self.dead = true;
        }
    }

    /// Sends queued bytes, and output from the log to an attached client, as long as the client
    /// accepts them. If the client has seen all records, the log is not read: with many clients,
    /// each event would cost time for all of them.
    pub(crate) fn pump(&mut self, recorded: u64) {
        // A fast client that is far behind must not delay the container. The event loop comes back
        // here as long as something is queued.
        for _ in 0..16 {
            self.fill(recorded);
            if self.output.len() <= self.sent {
                self.output = Vec::new();
                self.sent = 0;
                return;
            }
            match self
                .socket
                .write(self.output.get(self.sent..).unwrap_or_default())
            {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
        }
    }

    /// Whether bytes wait to be sent to the client.
    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.output.len() || self.behind()
    }

    /// Whether the log has more for the client, as far as known.
    fn behind(&self) -> bool {
        self.attached
            .as_ref()
            .is_some_and(|attached| !attached.caught_up)
    }

    /// Whether the client has received everything.
    pub(crate) fn is_served(&self) -> bool {
        !self.has_output() && !self.waits() && (self.ended || self.session().is_none())
    }

    /// Whether the client waits for an answer; it sends no further request before.
    pub(crate) fn waits(&self) -> bool {
        self.waiting || self.pending.is_some()
    }

    /// The exec session that the client is attached to.
    pub(crate) fn session(&self) -> Option<u64> {
        self.attached.as_ref()?.session
    }

    /// Whether the client is attached to an output of a session.
    pub(crate) fn wants(&self, session: u64, index: usize) -> bool {
        self.attached.as_ref().is_some_and(|attached| {
            let wanted = [attached.stdout, attached.stderr];
            attached.session == Some(session) && wanted.get(index) == Some(&true)
        })
    }

    /// Whether more output may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.dead || self.output.len() - self.sent < MAX_OUTPUT
    }

    /// Queues output of an exec session.
    pub(crate) fn send_output(&mut self, stream: OutputStream, data: &[u8]) {
        if !self.dead {
            stream::encode(stream, data, &mut self.output);
        }
    }

    /// Copies records of the log into frames.
    fn fill(&mut self, recorded: u64) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        if attached.caught_up && attached.seen == recorded {
            return;
        }
        let Some(reader) = &mut attached.reader else {
            return;
        };
        if self.sent > 0 && self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        // The start of the last frame, and its stream.
        let mut frame: Option<(usize, OutputStream)> = None;
        while self.output.len() - self.sent < MAX_OUTPUT {
            let record = match reader.next() {
                Ok(Next::Record(record)) => record,
                Ok(Next::CaughtUp { .. }) => {
                    attached.caught_up = true;
                    attached.seen = recorded;
                    return;
                }
                Err(_) => {
                    self.dead = true;
                    return;
                }
            };
            attached.caught_up = false;
            let (wanted, output) = match record.stream {
                Stream::Stdout => (attached.stdout, OutputStream::Stdout),
                Stream::Stderr => (attached.stderr, OutputStream::Stderr),
            };
            if !wanted {
                continue;
            }
            match frame {
                Some((start, last))
                    if last == output
                        && self.output.len() - start + record.payload.len() < MAX_STREAM_FRAME =>
                {
                    stream::extend(start, record.payload, &mut self.output);
                }
                _ => {
                    frame = Some((self.output.len(), output));
                    stream::encode(output, record.payload, &mut self.output);
                }
            }
        }
    }
}
