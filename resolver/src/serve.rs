//! Serves the sockets of one container.
//!
//! One task does everything for a container. So it ends as a whole, and containers take turns
//! however much one of them asks. `connection` serves one TCP connection.

mod connection;

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use keelson_resolver_protocol::{Ports, SocketKind, Sockets as Handed};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::answer::{self, Decision};
use crate::forward::forward;
use crate::limits::{CONNECTIONS, TURN};
use crate::places::{Count, Place};
use crate::query::{self, QueryPacket, Request, Transport};
use crate::shared::Shared;
use crate::upstream::{Question, Sockets, TcpPool, UdpPool};
use crate::watched::watch_borrowed;

/// A container with its sockets.
#[derive(Debug)]
pub(crate) struct Served {
    id: String,
    /// Its UDP port.
    ports: Ports,
    udp: UdpSocket,
    tcp: TcpListener,
    upstream: Sockets,
    /// Becomes readable when the container has ended.
    life: Option<OwnedFd>,
    /// Its open queries.
    in_flight: Count,
    connections: Cell<usize>,
}

impl Served {
    /// Takes over the sockets of a container.
    pub(crate) fn new(id: &str, sockets: Handed) -> io::Result<Self> {
        let udp = StdSocket::from(sockets.udp_listener);
        let tcp = StdListener::from(sockets.tcp_listener);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let ports = Ports {
            udp: udp.local_addr()?.port(),
            tcp: tcp.local_addr()?.port(),
        };
        Ok(Self {
            id: id.to_owned(),
            ports,
            udp: UdpSocket::from_std(udp)?,
            tcp: TcpListener::from_std(tcp)?,
            upstream: Sockets {
                udp: UdpPool::new(sockets.udp),
                tcp_ipv4: TcpPool::new(sockets.tcp_ipv4),
                tcp_ipv6: TcpPool::new(sockets.tcp_ipv6),
            },
            life: sockets.life,
            in_flight: Count::default(),
            connections: Cell::new(0),
        })
    }

    /// The ports on which it is served.
    pub(crate) const fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether a query or a connection is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.get() > 0 || self.connections.get() > 0
    }

    /// Duplicates its sockets, except those in use.
    pub(crate) fn sockets(&self) -> io::Result<(Vec<SocketKind>, Vec<OwnedFd>)> {
        let (ipv4, ipv6) = (self.upstream.tcp_ipv4.free(), self.upstream.tcp_ipv6.free());
        fn all<'a>(
            kind: SocketKind,
            list: impl Iterator<Item = &'a OwnedFd>,
        ) -> impl Iterator<Item = (SocketKind, BorrowedFd<'a>)> {
            list.map(move |fd| (kind, fd.as_fd()))
        }
        [
            (SocketKind::UdpListener, self.udp.as_fd()),
            (SocketKind::TcpListener, self.tcp.as_fd()),
        ]
        .into_iter()
        .chain(all(SocketKind::Udp, self.upstream.udp.descriptors()))
        .chain(all(SocketKind::TcpIpv4, ipv4.iter()))
        .chain(all(SocketKind::TcpIpv6, ipv6.iter()))
        .chain(self.life.iter().map(|fd| (SocketKind::Life, fd.as_fd())))
        .map(|(kind, fd)| Ok((kind, fd.try_clone_to_owned()?)))
        .collect()
    }

    /// Serves it until it ends.
    pub(crate) async fn serve(self: Rc<Self>, shared: Rc<Shared>) {
        let life = self.life.as_ref().map(AsFd::as_fd);
        let life = life.and_then(|life| watch_borrowed(life, Interest::READABLE).ok());
        let ended = async {
            match &life {
                Some(life) => drop(life.readable().await),
                None => std::future::pending().await,
            }
        };
        tokio::pin!(ended);
        let mut work: FuturesUnordered<LocalBoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = &mut ended => return,
                ready = self.udp.readable() => {
                    if ready.is_ok() {
                        self.take_turn(&shared, &work);
                    }
                    tokio::task::yield_now().await;
                }
                accepted = self.tcp.accept(), if self.connections.get() < CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => work.push(self.connection(&shared, stream)),
                        // Too many files are open, for example. They may be closed later.
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
                Some(()) = work.next(), if !work.is_empty() => {}
            }
        }
    }

    /// Answers some datagrams.
    fn take_turn(
        self: &Rc<Self>,
        shared: &Rc<Shared>,
        work: &FuturesUnordered<LocalBoxFuture<'static, ()>>,
    ) {
        for _ in 0..TURN {
            let mut buffer = shared.buffer.borrow_mut();
            buffer.clear();
            let client = match self.udp.try_recv_buf_from(&mut *buffer) {
                Ok((_, client)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let reply = self.reply(shared, &buffer, Transport::Udp);
            drop(buffer);
            match reply {
                Reply::Now(answer) => self.send(&answer, client),
                Reply::Later(answer) => {
                    let served = self.clone();
                    work.push(Box::pin(async move {
                        served.send(&answer.await, client);
                    }));
                }
                Reply::Never => {}
            }
        }
    }

    /// An answer that does not fit into the client's buffers is lost, as on any network.
    fn send(&self, answer: &[u8], client: SocketAddr) {
        let _ = self.udp.try_send_to(answer, client);
    }

    /// The answer to a packet.
    fn reply(self: &Rc<Self>, shared: &Rc<Shared>, bytes: &[u8], transport: Transport) -> Reply {
        let request = match query::read(bytes, transport) {
            QueryPacket::Question(request) => request,
            QueryPacket::Refused(refusal) => return Reply::Now(answer::refusal(&refusal)),
            QueryPacket::Nothing => return Reply::Never,
        };
        let decision = answer::decide(&shared.table.borrow(), &self.id, &request, |addresses| {
            let mut random = shared.random.borrow_mut();
            random.shuffle(&mut addresses.ipv4);
            random.shuffle(&mut addresses.ipv6);
        });
        if let Decision::Answer(answer) = decision {
            return Reply::Now(answer);
        }
        let Some(place) = Place::take(&shared.in_flight, &self.in_flight) else {
            return Reply::Now(answer::refuse(&request, ResponseCode::Refused));
        };
        let question = Question {
            packet: bytes.into(),
            end: request.question_end,
            transport,
        };
        Reply::Later(Box::pin(self.clone().ask(
            shared.clone(),
            request,
            question,
            place,
        )))
    }

    async fn ask(
        self: Rc<Self>,
        shared: Rc<Shared>,
        request: Box<Request>,
        question: Question,
        _place: Place,
    ) -> Vec<u8> {
        let container = shared.table.borrow().container(&self.id);
        let upstreams = container.as_ref().map_or(&[][..], |known| &known.upstreams);
        match forward(&shared, &self.upstream, upstreams, &question).await {
            Some(theirs) => answer::passed_on(&request, theirs),
            None => answer::refuse(&request, ResponseCode::ServFail),
        }
    }

    fn connection(
        self: &Rc<Self>,
        shared: &Rc<Shared>,
        stream: TcpStream,
    ) -> LocalBoxFuture<'static, ()> {
        let (served, shared) = (self.clone(), shared.clone());
        served.connections.set(served.connections.get() + 1);
        Box::pin(async move {
            connection::serve(&served, &shared, stream).await;
            served.connections.set(served.connections.get() - 1);
        })
    }
}

/// How to answer a packet.
enum Reply {
    Now(Vec<u8>),
    Later(LocalBoxFuture<'static, Vec<u8>>),
    Never,
}
