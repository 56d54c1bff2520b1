//! A connection to the resolver.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use keelson_resolver_protocol::{
    ChannelError, MAX_MESSAGE, MessageError, PROTOCOL, Packet, Ports, Reply, Request, Sockets,
    decode, encode, receive, send,
};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long the resolver may take to answer. It never waits for others before it answers.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Why a connection is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// A system call failed.
    #[error("{operation} the resolver: {source}")]
    Kernel {
        operation: &'static str,
        source: io::Error,
    },
    /// The message is too large, and was not sent.
    #[error("the request to the resolver is too large: {0}")]
    Request(MessageError),
    /// A reply can't be parsed.
    #[error("the resolver's answer can't be read: {0}")]
    Message(#[from] MessageError),
    /// A message with its descriptors can't be received.
    #[error("the resolver's answer can't be read: {0}")]
    Channel(#[from] ChannelError),
    /// The resolver has ended.
    #[error("the resolver has ended")]
    Ended,
    /// The resolver hangs.
    #[error("the resolver does not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The resolver speaks another version of the protocol.
    #[error("the resolver speaks version {theirs} of the protocol, not {PROTOCOL}")]
    Protocol { theirs: u32 },
    /// The reply does not belong to the request.
    #[error("unexpected answer of the resolver: {0:?}")]
    Unexpected(Box<Reply>),
}

impl ClientError {
    pub(super) fn kernel(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Kernel { operation, source }
    }
}

/// A connection to the resolver.
#[derive(Debug)]
pub(super) struct Client {
    socket: AsyncFd<OwnedFd>,
    process: Option<Pid>,
    number: u64,
}

/// Watches a descriptor.
///
/// `AsyncFd::with_interest` is deprecated because of types whose descriptor changes or is closed
/// early, and its successor is unsafe for that reason. `OwnedFd` keeps its descriptor.
#[expect(deprecated, reason = "the successor is unsafe")]
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

impl Client {
    /// Takes a connected socket, and the process at its other end, if that is known. Must be called
    /// inside a tokio runtime.
    pub(super) fn new(socket: OwnedFd, process: Option<Pid>) -> Result<Self, ClientError> {
        let error = ClientError::kernel("watch the connection to");
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| error(errno.into()))?;
        // Without this privilege, large messages wait until the resolver has read others.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, 4 * MAX_MESSAGE);
        let socket = watch(socket, Interest::READABLE | Interest::WRITABLE).map_err(error)?;
        Ok(Self {
            socket,
            process,
            number: 0,
        })
    }

    /// Sends `Hello`, and returns the containers whose sockets the resolver has.
    pub(super) async fn hello(&mut self) -> Result<BTreeMap<String, Ports>, ClientError> {
        self.ask(&Request::Hello { protocol: PROTOCOL }, None)
            .await?;
        let mut held = BTreeMap::new();
        loop {
            match self.next_in_time().await?.1 {
                Reply::Welcome { protocol, program } => {
                    if protocol != PROTOCOL {
                        return Err(ClientError::Protocol { theirs: protocol });
                    }
                    tracing::debug!(program, "resolver found");
                }
                Reply::Holds { container, ports } => {
                    held.insert(container, ports);
                }
                Reply::Done => return Ok(held),
                other => return Err(ClientError::Unexpected(Box::new(other))),
            }
        }
    }

    /// Makes the resolver return the sockets of all containers and end.
    pub(super) async fn hand_over(&mut self) -> Result<BTreeMap<String, Sockets>, ClientError> {
        self.ask(&Request::HandOver, None).await?;
        let mut handed = BTreeMap::new();
        loop {
            let (packet, _, reply) = self.packet_in_time().await?;
            match reply {
                Reply::Sockets { container, sockets } => {
                    match Sockets::from_descriptors(&sockets, packet.descriptors) {
                        Ok(sockets) => drop(handed.insert(container, sockets)),
                        Err(error) => tracing::warn!(container, %error, "sockets not taken over"),
                    }
                }
                Reply::Done => return Ok(handed),
                other => return Err(ClientError::Unexpected(Box::new(other))),
            }
        }
    }

    /// Sends a request, and returns its number, which the answer will have.
    pub(super) async fn ask(
        &mut self,
        request: &Request,
        sockets: Option<&Sockets>,
    ) -> Result<u64, ClientError> {
        self.number += 1;
        let bytes = encode(self.number, request).map_err(ClientError::Request)?;
        let descriptors: Vec<BorrowedFd<'_>> = match sockets {
            Some(sockets) => sockets.descriptors().1,
            None => Vec::new(),
        };
        let error = ClientError::kernel("write to");
        let sending = async {
            loop {
                let mut ready = self.socket.writable().await?;
                match send(self.socket.get_ref(), &bytes, &descriptors) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                    other => return other,
                }
            }
        };
        match timeout(PATIENCE, sending).await {
            Ok(sent) => sent.map_err(error).map(|()| self.number),
            Err(_) => Err(ClientError::Silent),
        }
    }

    /// Waits for the next answer. The call can be cancelled and repeated.
    pub(super) async fn next(&self) -> Result<(u64, Reply), ClientError> {
        let (_, number, reply) = self.packet().await?;
        Ok((number, reply))
    }

    async fn next_in_time(&self) -> Result<(u64, Reply), ClientError> {
        let (_, number, reply) = self.packet_in_time().await?;
        Ok((number, reply))
    }

    async fn packet_in_time(&self) -> Result<(Packet, u64, Reply), ClientError> {
        let packet = timeout(PATIENCE, self.packet()).await;
        packet.unwrap_or(Err(ClientError::Silent))
    }

    async fn packet(&self) -> Result<(Packet, u64, Reply), ClientError> {
        let error = ClientError::kernel("read from");
        loop {
            let mut ready = self.socket.readable().await.map_err(&error)?;
            let packet = match receive(self.socket.get_ref()) {
                Err(error) if error.would_block() => {
                    ready.clear_ready();
                    continue;
                }
                other => other?,
            };
            if packet.bytes.is_empty() {
                return Err(ClientError::Ended);
            }
            let (number, reply) = decode(&packet.bytes)?;
            return Ok((packet, number, reply));
        }
    }

    /// The process at the other end.
    pub(super) const fn process(&self) -> Option<Pid> {
        self.process
    }
}
