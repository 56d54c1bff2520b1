//! Sends the queries of one container over a few UDP sockets.
//!
//! A socket is connected to one server while it is used, so that the kernel drops what others send
//! and reports at once when nobody listens. When its last query has ended, it is disconnected and
//! loses its port. The next query has another port, so a forger has to guess port and identifier
//! (RFC 5452). Idle sockets cost only their memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use keelson_resolver_protocol::Upstream;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, connect, connect_unspec, send};
use tokio::io::Interest;
use tokio::sync::{Notify, oneshot};

use super::{Failure, Question, address};
use crate::answer;
use crate::random::Random;
use crate::shared::Shared;
use crate::watched::watch_borrowed;

/// The sockets of one container.
#[derive(Debug)]
pub(crate) struct UdpPool(Vec<Rc<Socket>>);

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    /// Whether it takes IPv4 addresses mapped to IPv6.
    ipv6: bool,
    state: RefCell<State>,
    /// Wakes the reading task when nobody waits any more.
    deserted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The server to which it is connected, while queries are open.
    server: Option<SocketAddr>,
    waiting: HashMap<u16, Waiting>,
}

/// A task that waits for an answer.
#[derive(Debug)]
struct Waiting {
    question: Question,
    answer: oneshot::Sender<Result<Vec<u8>, Errno>>,
}

impl UdpPool {
    pub(crate) fn new(sockets: Vec<OwnedFd>) -> Self {
        let socket = |descriptor: OwnedFd| {
            let ipv6 = rustix::net::sockopt::socket_domain(&descriptor)
                .is_ok_and(|family| family == AddressFamily::INET6);
            Rc::new(Socket {
                descriptor,
                ipv6,
                state: RefCell::default(),
                deserted: Notify::new(),
            })
        };
        Self(sockets.into_iter().map(socket).collect())
    }

    /// The sockets, for handing them over.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter().map(|socket| &socket.descriptor)
    }

    pub(super) async fn ask(
        &self,
        shared: &Rc<Shared>,
        upstream: &Upstream,
        question: &Question,
    ) -> Result<Vec<u8>, Failure> {
        let any = self.0.first().ok_or(Failure::Busy)?;
        let server = address(upstream, &any.descriptor)?;
        let socket = self.choose(server).ok_or(Failure::Busy)?;
        socket.connect(server, shared)?;
        let (answer, wait) = oneshot::channel();
        let question = question.clone();
        let number = socket.register(
            Waiting { question, answer },
            &mut shared.random.borrow_mut(),
        );
        let _end = End(&socket, number);
        socket.send(number)?;
        match wait.await {
            Ok(answer) => Ok(answer?),
            // The reading task could not be started.
            Err(_) => Err(Failure::Busy),
        }
    }

    /// Returns an idle socket, or else the one with the fewest queries of those connected to the
    /// server.
    fn choose(&self, server: SocketAddr) -> Option<Rc<Socket>> {
        let load = |socket: &&Rc<Socket>| {
            let state = socket.state.borrow();
            match state.server {
                None => Some(0),
                Some(other) if other == server => Some(1 + state.waiting.len()),
                Some(_) => None,
            }
        };
        let usable = self.0.iter().filter(|socket| load(socket).is_some());
        usable.min_by_key(load).cloned()
    }
}

impl Socket {
    /// Connects the socket unless it is connected, and starts to read.
    fn connect(self: &Rc<Self>, server: SocketAddr, shared: &Rc<Shared>) -> Result<(), Failure> {
        let mut state = self.state.borrow_mut();
        if state.server.is_some() {
            return Ok(());
        }
        let target = match server {
            SocketAddr::V4(address) if self.ipv6 => {
                SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port())
            }
            other => other,
        };
        connect(&self.descriptor, &target)?;
        state.server = Some(server);
        tokio::task::spawn_local(read(self.clone(), shared.clone()));
        Ok(())
    }

    /// Chooses an identifier for a query.
    fn register(&self, waiting: Waiting, random: &mut Random) -> u16 {
        let mut state = self.state.borrow_mut();
        // There are more identifiers than open queries.
        let mut number = random.next();
        while state.waiting.contains_key(&number) {
            number = random.next();
        }
        state.waiting.insert(number, waiting);
        number
    }

    fn send(&self, number: u16) -> Result<(), Errno> {
        let packet = {
            let state = self.state.borrow();
            state
                .waiting
                .get(&number)
                .map(|waiting| waiting.question.numbered(number))
        };
        let packet = packet.unwrap_or_default();
        match send(&self.descriptor, &packet, SendFlags::NOSIGNAL) {
            // The kernel reports a failure of an earlier packet when the next one is sent.
            Err(Errno::CONNREFUSED) => {
                send(&self.descriptor, &packet, SendFlags::NOSIGNAL)?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }

    /// Receives available answers. Returns whether there may be more.
    fn receive(&self, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let space = rustix::buffer::spare_capacity(buffer);
        match rustix::net::recv(&self.descriptor, space, flags) {
            Ok(_) => {
                let mut state = self.state.borrow_mut();
                let number = buffer
                    .first_chunk()
                    .map(|number| u16::from_be_bytes(*number));
                let waiting = number.and_then(|number| Some((number, state.waiting.get(&number)?)));
                if let Some((number, waiting)) = waiting
                    && answer::answers(buffer, waiting.question.asked())
                    && let Some(waiting) = state.waiting.remove(&number)
                {
                    // The task may have stopped waiting.
                    let _ = waiting.answer.send(Ok(buffer.clone()));
                }
                true
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            Err(errno) => {
                for (_, waiting) in self.state.borrow_mut().waiting.drain() {
                    let _ = waiting.answer.send(Err(errno));
                }
                true
            }
        }
    }
}

/// Reads answers until nobody waits for one.
async fn read(socket: Rc<Socket>, shared: Rc<Shared>) {
    // If nobody listens, there is only an error to see.
    let interest = Interest::READABLE | Interest::ERROR;
    let registered = watch_borrowed(socket.descriptor.as_fd(), interest);
    if let Ok(registered) = &registered {
        while !socket.state.borrow().waiting.is_empty() {
            tokio::select! {
                ready = registered.ready(interest) => {
                    let Ok(mut ready) = ready else { break };
                    if !socket.receive(&mut shared.buffer.borrow_mut()) {
                        ready.clear_ready();
                    }
                }
                () = socket.deserted.notified() => {}
            }
        }
    }
    drop(registered);
    let mut state = socket.state.borrow_mut();
    state.waiting.clear();
    state.server = None;
    // If this fails, the port stays.
    let _ = connect_unspec(&socket.descriptor);
}

/// Ends a query, whatever its result.
struct End<'a>(&'a Rc<Socket>, u16);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let Self(socket, number) = self;
        let mut state = socket.state.borrow_mut();
        state.waiting.remove(number);
        if state.waiting.is_empty() {
            socket.deserted.notify_one();
        }
    }
}
