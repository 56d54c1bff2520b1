//! The messages between the child and its parent while the container is created.
//!
//! One message is one packet of a socket pair: a byte for its kind, then text. The child's end is
//! close-on-exec, so the parent reads end of file when the command was executed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keelson_model::error::ErrorKind;
use keelson_shim_protocol::FailReason;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::failure::{Failure, Step};

/// A message from the child, or an event that counts as one.
#[derive(Debug)]
pub(crate) enum Message {
    /// Everything is set up, the command waits for [`Channel::start`]. With a terminal, its
    /// master end.
    Ready(Option<OwnedFd>),
    /// The namespaces and mounts are made. Now the parent runs its hooks; the child waits for
    /// [`Channel::start`].
    Hooks,
    /// Another process replaces the sender, as a child of the receiver. It waits for
    /// [`Channel::start`].
    Made(i32),
    /// A step failed; the child ends.
    Failed(Failure),
    /// The other side is gone. After the start this means that the command was executed.
    Closed,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

const READY: u8 = b'R';
const HOOKS: u8 = b'H';
const MADE: u8 = b'M';
const FAILED: u8 = b'F';
const START: u8 = b'S';
/// Longer messages are cut.
const LONGEST: usize = 4096;

impl Channel {
    /// The parent's and the child's end.
    pub(crate) fn pair() -> Result<(Self, Self), Failure> {
        let (parent, child) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .step(|| "make a socket pair")?;
        Ok((Self(parent), Self(child)))
    }

    /// An end that was made elsewhere: a connection to the start socket.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Child: everything is set up.
    pub(crate) fn ready(&self, terminal: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = terminal.into_iter().collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(&[READY])],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .step(|| "report to the parent")?;
        Ok(())
    }

    /// Child: lets the parent run its hooks, and waits for the end of them. False: the parent is
    /// gone.
    pub(crate) fn hooks(&self) -> Result<bool, Failure> {
        rustix::net::send(&self.0, &[HOOKS], SendFlags::NOSIGNAL)
            .step(|| "report to the parent")?;
        Ok(self.wait_for_start())
    }

    /// Child: another process replaces this one.
    pub(crate) fn made(&self, pid: i32) -> Result<(), Failure> {
        let [a, b, c, d] = pid.to_le_bytes();
        rustix::net::send(&self.0, &[MADE, a, b, c, d], SendFlags::NOSIGNAL)
            .step(|| "report to the parent")?;
        Ok(())
    }

    /// Child: a step failed. If this can't be sent either, nobody else can be told.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut packet = vec![FAILED, reason_byte(failure.reason), kind_byte(failure.kind)];
        let errno = failure.cause.map_or(0, |errno| errno as i32);
        packet.extend(errno.to_le_bytes());
        packet.extend(failure.message.bytes().take(LONGEST - packet.len()));
        let _ = rustix::net::send(&self.0, &packet, SendFlags::NOSIGNAL);
    }

    /// Parent: execute the command now.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        rustix::net::send(&self.0, &[START], SendFlags::NOSIGNAL)
            .step(|| "tell the container's process to start")?;
        Ok(())
    }

    /// Child: waits for [`Channel::start`]; false when the parent is gone.
    pub(crate) fn wait_for_start(&self) -> bool {
        let mut byte = [0];
        loop {
            return match rustix::net::recv(&self.0, &mut byte, RecvFlags::empty()) {
                Ok((1, _)) => byte[0] == START,
                Err(Errno::INTR) => continue,
                _ => false,
            };
        }
    }

    /// Child: whether the parent is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        let mut events = [nix::poll::PollFd::new(
            self.0.as_fd(),
            nix::poll::PollFlags::empty(),
        )];
        nix::poll::poll(&mut events, nix::poll::PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Parent: the next message; waits for it.
    pub(crate) fn receive(&self) -> Result<Message, Failure> {
        let mut packet = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut packet)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::INTR) => {}
                // The child ended without reading the messages to it.
                Err(Errno::CONNRESET) => return Ok(Message::Closed),
                other => break other,
            }
        }
        .step(|| "receive from the container's process")?;
        let terminal = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match packet.get(..received.bytes).unwrap_or_default() {
            [] => Ok(Message::Closed),
            [READY, ..] => Ok(Message::Ready(terminal)),
            [MADE, a, b, c, d] => Ok(Message::Made(i32::from_le_bytes([*a, *b, *c, *d]))),
            [HOOKS, ..] => Ok(Message::Hooks),
            [FAILED, reason, kind, a, b, c, d, text @ ..] => Ok(Message::Failed(Failure {
                reason: reason_of(*reason),
                kind: kind_of(*kind),
                cause: match i32::from_le_bytes([*a, *b, *c, *d]) {
                    0 => None,
                    number => Some(nix::errno::Errno::from_raw(number)),
                },
                message: String::from_utf8_lossy(text).into_owned(),
            })),
            _ => Err(Failure::internal(
                "the container's process sent an unknown message",
            )),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn reason_byte(reason: FailReason) -> u8 {
    match reason {
        FailReason::NotFound => 1,
        FailReason::NotExecutable => 2,
        FailReason::Internal => 0,
    }
}

fn reason_of(byte: u8) -> FailReason {
    match byte {
        1 => FailReason::NotFound,
        2 => FailReason::NotExecutable,
        _ => FailReason::Internal,
    }
}

const KINDS: [ErrorKind; 4] = [
    ErrorKind::Internal,
    ErrorKind::InvalidInput,
    ErrorKind::NotImplemented,
    ErrorKind::Conflict,
];

fn kind_byte(kind: ErrorKind) -> u8 {
    KINDS.iter().position(|known| *known == kind).unwrap_or(0) as u8
}

fn kind_of(byte: u8) -> ErrorKind {
    KINDS
        .get(usize::from(byte))
        .copied()
        .unwrap_or(ErrorKind::Internal)
}
