//! Sends one query over a connection.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use keelson_resolver_protocol::Upstream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, connect, connect_unspec, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::{Failure, Question, address};
use crate::answer;
use crate::limits::MAX_ANSWER;
use crate::shared::Shared;
use crate::watched::watch_borrowed;

/// The sockets of one container and one family. Each carries one query at a time; further queries
/// wait.
#[derive(Debug)]
pub(crate) struct TcpPool {
    free: RefCell<Vec<OwnedFd>>,
    places: Semaphore,
}

impl TcpPool {
    pub(crate) fn new(sockets: Vec<OwnedFd>) -> Self {
        Self {
            places: Semaphore::new(sockets.len()),
            free: RefCell::new(sockets),
        }
    }

    /// The unused sockets, for handing them over.
    pub(crate) fn free(&self) -> std::cell::Ref<'_, Vec<OwnedFd>> {
        self.free.borrow()
    }

    pub(super) async fn ask(
        &self,
        shared: &Rc<Shared>,
        upstream: &Upstream,
        question: &Question,
    ) -> Result<Vec<u8>, Failure> {
        // Return the socket first, then the permit.
        let _place = self.places.acquire().await.map_err(|_| Failure::Busy)?;
        let socket = self.free.borrow_mut().pop().ok_or(Failure::Busy)?;
        let used = Used(self, Some(socket));
        let descriptor = used.1.as_ref().ok_or(Failure::Busy)?;
        let number = shared.random.borrow_mut().next();
        exchange(descriptor.as_fd(), upstream, question, number).await
    }
}

/// A socket in use. It is disconnected when it is returned, so that it can be connected again.
struct Used<'a>(&'a TcpPool, Option<OwnedFd>);

impl Drop for Used<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.1.take() {
            // If this fails, the next connection fails, too.
            let _ = connect_unspec(&socket);
            self.0.free.borrow_mut().push(socket);
        }
    }
}

/// Connects, sends the query, and reads the answer.
pub(super) async fn exchange(
    socket: BorrowedFd<'_>,
    upstream: &Upstream,
    question: &Question,
    number: u16,
) -> Result<Vec<u8>, Failure> {
    let server: SocketAddr = address(upstream, socket)?;
    match connect(socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Not earlier: a socket that was never connected reports that it is closed.
    let socket = watch_borrowed(socket, Interest::READABLE | Interest::WRITABLE)?;
    let mut ready = socket.writable().await?;
    rustix::net::sockopt::socket_error(socket.get_ref())??;
    ready.retain_ready();
    drop(ready);
    let packet = question.numbered(number);
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    write(&socket, &[&length.to_be_bytes()[..], &packet].concat()).await?;
    loop {
        let mut length = [0; 2];
        read(&socket, &mut length).await?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        debug_assert!(packet.len() <= MAX_ANSWER);
        read(&socket, &mut packet).await?;
        let same = packet.first_chunk() == Some(&number.to_be_bytes());
        if same && answer::answers(&packet, question.asked()) {
            return Ok(packet);
        }
    }
}

async fn write(socket: &AsyncFd<BorrowedFd<'_>>, mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        let mut ready = socket.writable().await?;
        match send(socket.get_ref(), bytes, SendFlags::NOSIGNAL) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

async fn read(socket: &AsyncFd<BorrowedFd<'_>>, mut bytes: &mut [u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        let mut ready = socket.readable().await?;
        match recv(socket.get_ref(), &mut *bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(Errno::CONNRESET.into()),
            Ok((_, count)) => bytes = bytes.get_mut(count..).unwrap_or_default(),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
