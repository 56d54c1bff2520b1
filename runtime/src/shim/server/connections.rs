//! The connections to the shim's socket: accepting, reading, writing.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use keelson_shim_protocol::SOCKET_FILE;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{INPUT, LISTENER, Server, State, failed};
use crate::failure::{Failure, Step};
use crate::shim::client::{Client, Pending};

/// How many connections may wait to be accepted. The kernel's limit may be lower.
const BACKLOG: i32 = 4096;

impl Server {
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(listener, flags) {
            Ok(socket) => socket,
            Err(error) => {
                let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
                if exhausted.contains(&error) {
                    // The connection must wait, and until then the event loop would report it again
                    // and again.
                    self.deaf = self.epoll.delete(listener).is_ok();
                }
                return;
            }
        };
        let token = self.next_client;
        let client = Client::new(socket.into());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        if self.epoll.add(client.fd(), event).is_ok() {
            self.next_client += 1;
            self.clients.insert(token, client);
        }
    }

    /// Waits for connections again: descriptors may have become free.
    pub(super) fn listen_again(&mut self) {
        if let Some(listener) = &self.listener {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            self.deaf = self.epoll.add(listener, event).is_err();
        }
    }

    pub(super) fn handle_client(&mut self, token: u64, events: EpollFlags) {
        // Taken out of the map, so that requests may change everything else.
        let Some(mut client) = self.clients.remove(&token) else {
            return;
        };
        if events.contains(EpollFlags::EPOLLIN) && !client.input_ended {
            client.read();
        }
        let gone = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        if gone {
            // The bytes that it sent before are for the container, and no other event will announce
            // them.
            client.read_rest();
        }
        if client.attached.is_none() {
            self.answer(&mut client);
        }
        self.pass_input(&mut client, gone);
        if gone || (client.input_ended && client.attached.is_none() && !client.waits()) {
            client.ended = true;
        }
        self.clients.insert(token, client);
    }

    /// Passes an attached client's input to the container.
    fn pass_input(&mut self, client: &mut Client, gone: bool) {
        if let Some(number) = client.session() {
            self.exec_input(number, client);
            return;
        }
        let Some(stdin) = client.attached.as_ref().map(|attached| attached.stdin) else {
            return;
        };
        let bytes = client.take_input();
        let Some(attached) = client.attached.as_mut().filter(|_| stdin) else {
            return;
        };
        if !bytes.is_empty() {
            attached.wrote = true;
            self.streams.push_input(&bytes);
        }
        if client.input_ended {
            // A half-closed connection ends the input. A connection that is gone ends it only if
            // the container was made that way.
            if !gone || (attached.wrote && self.spec.stdin_once) {
                self.streams.end_input();
            }
            attached.stdin = false;
        }
    }

    /// Sends as much to every client as it accepts, and updates the events to wait for.
    pub(super) fn serve(&mut self) {
        let takes_input = self.streams.takes_input();
        let stopped = matches!(self.state, State::Stopped(_));
        let mut finished = Vec::new();
        for (token, client) in &mut self.clients {
            client.pump(self.recorded);
            let over = stopped && client.is_served();
            if client.dead || over || (client.ended && !client.has_output()) {
                finished.push(*token);
                continue;
            }
            let reads_stdin = client
                .attached
                .as_ref()
                .is_some_and(|attached| attached.stdin);
            let takes_input = match client.session() {
                Some(number) => self.sessions.takes_input(number),
                None => takes_input,
            };
            let mut interest = EpollFlags::empty();
            interest.set(
                EpollFlags::EPOLLIN,
                !client.input_ended
                    && !client.waits()
                    && (takes_input || !reads_stdin)
                    && (client.attached.is_some() || client.has_room()),
            );
            // Requests that arrived before there was room for their answers cause no further event.
            interest.set(
                EpollFlags::EPOLLOUT,
                client.has_output() || client.has_request(),
            );
            if interest != client.interest {
                client.interest = interest;
                let mut event = EpollEvent::new(interest, *token);
                client.dead = self.epoll.modify(client.fd(), &mut event).is_err();
            }
        }
        for token in finished {
            // Closing the descriptor removes it from the epoll.
            let client = self.clients.remove(&token);
            if let Some(Pending::Probe(number)) = client.and_then(|client| client.pending) {
                self.probe_abandoned(number);
            }
        }
        let pending = !self.streams.pending.is_empty();
        if pending != self.input_watched
            && let Some(input) = &self.streams.input
        {
            let result = if pending {
                self.epoll
                    .add(input, EpollEvent::new(EpollFlags::EPOLLOUT, INPUT))
            } else {
                self.epoll.delete(input)
            };
            if result.is_ok() {
                self.input_watched = pending;
            }
        }
    }

    /// Answers the requests that have arrived completely.
    fn answer(&mut self, client: &mut Client) {
        while client.attached.is_none() && !client.waits() && client.has_room() {
            let request = match client.next_request() {
                None => return,
                Some(Ok(request)) => request,
                Some(Err(error)) => {
                    client.respond(&failed(Failure::invalid(format!("request: {error}"))));
                    continue;
                }
            };
            let result = self.carry_out(request, client);
            match result {
                Ok(Some(response)) => client.respond(&response),
                Ok(None) => {}
                Err(failure) => client.respond(&failed(failure)),
            }
        }
    }
}

/// Listens in the shim's directory. Only root may connect.
pub(super) fn listen(directory: &Path) -> Result<UnixListener, Failure> {
    let path = directory.join(SOCKET_FILE);
    let step = || format!("listen on {}", path.display());
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .step(step)?;
    // The file gets the mode of its socket.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600)).step(step)?;
    let bind = || match SocketAddrUnix::new(&path) {
        Ok(address) => rustix::net::bind(&socket, &address),
        // Socket addresses are at most 107 bytes long; directories may be longer.
        Err(_) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(directory, flags, Mode::empty())?;
            let short = format!("/proc/self/fd/{}/{SOCKET_FILE}", opened.as_raw_fd());
            rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)
        }
    };
    match bind() {
        // Left by a shim that was killed.
        Err(Errno::ADDRINUSE) => {
            rustix::fs::unlink(&path).step(step)?;
            bind().step(step)?;
        }
        other => other.step(step)?,
    }
    rustix::net::listen(&socket, BACKLOG).step(step)?;
    Ok(socket.into())
}
