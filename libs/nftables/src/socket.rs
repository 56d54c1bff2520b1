//! The socket, and transactions over it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, recv, send,
    socket_with,
};

use crate::wire::{self, Message, Messages, Writer};
use crate::{Batch, NftError};

/// The largest transaction in bytes: about 300,000 elements.
const LIMIT: usize = 32 << 20;
/// What a socket may send at once with the default buffer.
const USUAL: usize = 100 << 10;
/// Buffer for one answer. The kernel lists at most 32 KiB at once.
const ANSWER: usize = 64 << 10;
/// Buffer for the answers to a transaction: an error repeats the refused message.
const ANSWERS: usize = 1 << 20;

/// A socket to the kernel's packet filter, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netfilter {
    socket: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

pub(crate) fn failed(operation: &'static str) -> impl FnOnce(Errno) -> NftError {
    move |source| NftError::Socket {
        operation,
        source: source.into(),
    }
}

/// Opens a socket that receives reports of multicast groups. Bit n stands for group n + 1.
pub(crate) fn open(groups: u32) -> Result<(OwnedFd, u32), NftError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(netlink::NETFILTER),
    )
    .map_err(failed("open"))?;
    bind(&socket, &SocketAddrNetlink::new(0, groups)).map_err(failed("bind"))?;
    let name = getsockname(&socket).map_err(failed("name"))?;
    let port = SocketAddrNetlink::try_from(name).map_err(failed("name"))?;
    // Without this privilege the buffer is smaller and overflows more often.
    let _ = set_socket_recv_buffer_size_force(&socket, ANSWERS);
    Ok((socket, port.pid()))
}

impl Netfilter {
    /// Opens a socket. It stays in the network namespace of the calling thread.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn open() -> Result<Self, NftError> {
        let (socket, port) = open(0)?;
        Ok(Self {
            socket,
            port,
            sequence: 0,
            buffer: vec![0; ANSWER],
        })
    }

    /// The socket's port number, by which a [`Monitor`](crate::Monitor) recognises the changes made
    /// by it.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Commits a batch: all of its changes or none.
    ///
    /// # Errors
    /// The kernel refuses a change. The error names it, and nothing was changed.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.send(&batch.finish())?;
        let labels = batch.labels();
        let last = labels.len() - 1;
        let refused = |message: &Message<'_>, code| {
            let number = usize::try_from(message.sequence).unwrap_or(usize::MAX);
            NftError::Refused {
                message: labels.get(number).cloned().unwrap_or_default(),
                source: io::Error::from_raw_os_error(code),
            }
        };
        let mut failure = None;
        let mut done = false;
        // The kernel has queued all answers when `send` returns.
        while let Some(datagram) = receive(&self.socket, &mut self.buffer)? {
            for message in Messages(datagram) {
                match message.error() {
                    Some(0) => done |= usize::try_from(message.sequence) == Ok(last),
                    Some(code) if failure.is_none() => failure = Some(refused(&message, code)),
                    _ => {}
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if done => Ok(()),
            None => Err(NftError::Silent {
                message: labels.get(last).cloned().unwrap_or_default(),
            }),
        }
    }

    /// Sends one request outside of a transaction and passes each answer to `each`. Returns whether
    /// the list changed during the reading.
    pub(crate) fn request(
        &mut self,
        label: &str,
        kind: u16,
        flags: u16,
        family: u8,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<bool, NftError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = wire::REQUEST | wire::ACK | flags;
        writer.message(kind, flags, self.sequence, family, 0, fill);
        self.send(&writer)?;
        let mut interrupted = false;
        while let Some(datagram) = receive(&self.socket, &mut self.buffer)? {
            for message in Messages(datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & wire::INTERRUPTED != 0;
                match message.error() {
                    Some(0) => return Ok(interrupted),
                    Some(code) => {
                        return Err(NftError::Refused {
                            message: label.to_owned(),
                            source: io::Error::from_raw_os_error(code),
                        });
                    }
                    None if message.kind == wire::DONE => return Ok(interrupted),
                    None => each(&message),
                }
            }
        }
        Err(NftError::Silent {
            message: label.to_owned(),
        })
    }

    fn send(&mut self, writer: &Writer) -> Result<(), NftError> {
        let bytes = writer.as_bytes();
        if bytes.len() > LIMIT {
            return Err(NftError::TooLarge {
                bytes: bytes.len(),
                limit: LIMIT,
            });
        }
        if bytes.len() > USUAL {
            // The kernel takes the datagram as a whole, or refuses it as too long.
            let _ = set_socket_send_buffer_size_force(&self.socket, bytes.len() + 4096);
        }
        // Left-over messages of an earlier call must not count as answers.
        while !matches!(receive(&self.socket, &mut self.buffer), Ok(None)) {}
        send(&self.socket, bytes, SendFlags::empty()).map_err(failed("send to"))?;
        Ok(())
    }
}

/// Returns the next datagram that has arrived.
fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, NftError> {
    loop {
        match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((length, _)) => return Ok(buffer.get(..length)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(failed("read")(error)),
        }
    }
}
