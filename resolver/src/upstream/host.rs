//! Sends queries from the host's network namespace, which is the resolver's own: one socket for
//! each query.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use keelson_resolver_protocol::Upstream;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::io::Interest;

use super::{Failure, Question, address, tcp};
use crate::answer;
use crate::shared::Shared;
use crate::watched::watch;

fn open(upstream: &Upstream, kind: SocketType) -> Result<OwnedFd, Failure> {
    let family = if upstream.address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

pub(super) async fn ask_by_udp(
    shared: &Rc<Shared>,
    upstream: &Upstream,
    question: &Question,
) -> Result<Vec<u8>, Failure> {
    let socket = open(upstream, SocketType::DGRAM)?;
    let server = address(upstream, &socket)?;
    rustix::net::connect(&socket, &server)?;
    let number = shared.random.borrow_mut().next();
    let packet = question.numbered(number);
    rustix::net::send(&socket, &packet, SendFlags::NOSIGNAL)?;
    // If nobody listens, there is only an error to see.
    let interest = Interest::READABLE | Interest::ERROR;
    let socket = watch(socket, interest)?;
    loop {
        let mut ready = socket.ready(interest).await?;
        let mut buffer = shared.buffer.borrow_mut();
        buffer.clear();
        let space = rustix::buffer::spare_capacity(&mut buffer);
        match rustix::net::recv(socket.get_ref(), space, RecvFlags::DONTWAIT) {
            Ok(_) => {
                let same = buffer.first_chunk() == Some(&number.to_be_bytes());
                if same && answer::answers(&buffer, question.asked()) {
                    return Ok(buffer.clone());
                }
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

pub(super) async fn ask_by_tcp(
    shared: &Rc<Shared>,
    upstream: &Upstream,
    question: &Question,
) -> Result<Vec<u8>, Failure> {
    let socket = open(upstream, SocketType::STREAM)?;
    let number = shared.random.borrow_mut().next();
    tcp::exchange(socket.as_fd(), upstream, question, number).await
}
