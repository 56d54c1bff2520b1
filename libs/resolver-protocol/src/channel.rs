//! Sends and receives one message with its descriptors in one system call. On a non-blocking socket
//! (fcntl(2), O_NONBLOCK) neither function waits; the error is then `WouldBlock`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::message::MAX_MESSAGE;
use crate::sockets::MAX_DESCRIPTORS;

/// A received message.
#[derive(Debug)]
pub struct Packet {
    /// The message. It is empty if the other side has closed the connection.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it. They are close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Why no message was received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// What the kernel says.
    #[error("receive a message: {0}")]
    Kernel(#[from] io::Error),
    /// The message is longer than [`MAX_MESSAGE`], or has more than [`MAX_DESCRIPTORS`].
    #[error("a message of {0} bytes is too long or has too many descriptors")]
    Oversized(usize),
}

impl ChannelError {
    /// Whether nothing has come yet.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Kernel(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Sends a message.
/// # Errors
/// The system call fails.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // The kernel may accept a larger buffer.
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        let flags = SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives a message.
///
/// # Errors
/// See [`ChannelError`].
pub fn receive(socket: impl AsFd) -> Result<Packet, ChannelError> {
    // Peek at the length first, so that only a large message takes much memory.
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let length = loop {
        match rustix::net::recv(&socket, &mut [0; 0], flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(io::Error::from)?.1,
        }
    };
    let mut bytes = vec![0; length.min(MAX_MESSAGE)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(&socket, &mut pieces, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(io::Error::from)?,
        }
    };
    // Descriptors that are not taken out are closed on drop.
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(ChannelError::Oversized(length));
    }
    bytes.truncate(received.bytes);
    Ok(Packet { bytes, descriptors })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (one, other) = pair();
        assert!(receive(&other).unwrap_err().would_block());
        let (mut reader, writer) = io::pipe().unwrap();
        send(&one, b"first", &[writer.as_fd()]).unwrap();
        send(&one, b"second", &[]).unwrap();
        drop(writer);
        let packet = receive(&other).unwrap();
        assert_eq!(
            (packet.bytes.as_slice(), packet.descriptors.len()),
            (&b"first"[..], 1)
        );
        let mut file = std::fs::File::from(packet.descriptors.into_iter().next().unwrap());
        file.write_all(b"through").unwrap();
        drop(file);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive(&other).unwrap().bytes, b"second");
        drop(one);
        assert!(receive(&other).unwrap().bytes.is_empty());
    }

    #[test]
    fn too_long_messages_are_refused_and_too_many_descriptors_closed() {
        let (one, other) = pair();
        rustix::net::sockopt::set_socket_send_buffer_size(&one, 4 * MAX_MESSAGE).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let many = vec![writer.as_fd(); MAX_DESCRIPTORS + 1];
        let error = send(&one, b"x", &many).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // Only root may send so much at once.
        if send(&one, &vec![b'x'; MAX_MESSAGE + 1], &[writer.as_fd()]).is_ok() {
            let error = receive(&other).unwrap_err();
            assert!(matches!(error, ChannelError::Oversized(_)), "{error}");
        }
        drop(writer);
        // The other end is closed.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
