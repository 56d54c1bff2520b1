//! Questions of one container over a few UDP sockets.
//!
//! A socket is connected to one server while it is used, so that the kernel passes over what others send
//! and says at once when nobody listens. When its last question has ended it is disconnected, by which
//! it loses its port: the next question has another one, and whoever wants to answer it in the server's
//! place has to guess port and number (RFC 5452). Sockets that ask nothing cost nothing but themselves.

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
    /// It takes addresses of IPv4 as such of IPv6.
    ipv6: bool,
    state: RefCell<State>,
    /// Wakes the task that reads: nobody waits any more.
    deserted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The server that it is connected to, while questions are asked.
    server: Option<SocketAddr>,
    waiting: HashMap<u16, Waiting>,
}

/// Somebody who waits for an answer.
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
            // The task that reads could not begin.
            Err(_) => Err(Failure::Busy),
        }
    }

    /// A socket that asks nothing, otherwise the one of those connected to the server that asks least.
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
    /// Connects it unless it is, and begins to read.
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

    /// Gives a question a number.
    fn register(&self, waiting: Waiting, random: &mut Random) -> u16 {
        let mut state = self.state.borrow_mut();
        // There are fewer questions than numbers.
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
            // That an earlier packet found nobody is told when the next one is sent.
            Err(Errno::CONNREFUSED) => {
                send(&self.descriptor, &packet, SendFlags::NOSIGNAL)?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }

    /// Takes what has come. Returns whether there may be more.
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
                    // It may have stopped waiting.
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
    // That nobody listens shows as an error alone.
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
    // Failing means that the port stays.
    let _ = connect_unspec(&socket.descriptor);
}

/// Ends a question, however it ends.
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
