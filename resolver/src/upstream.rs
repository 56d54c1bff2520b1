//! Asks a name server, over the sockets opened in a container's network namespace or from the
//! host's.
//!
//! - `udp`: queries of one container over a few sockets.
//! - `tcp`: one query over a connection.
//! - `host`: sockets in the host's namespace, one for each query.

mod host;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::rc::Rc;

use keelson_resolver_protocol::{Origin, Upstream};

pub(crate) use tcp::TcpPool;
pub(crate) use udp::UdpPool;

use crate::query::Transport;
use crate::shared::Shared;

/// A query, ready to be sent with any identifier.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The client's packet.
    pub(crate) packet: Rc<[u8]>,
    /// Offset of the question's end in it.
    pub(crate) end: usize,
    /// Its transport.
    pub(crate) transport: Transport,
}

impl Question {
    /// The question alone, to compare with answers.
    fn asked(&self) -> &[u8] {
        self.packet
            .get(crate::query::HEADER..self.end)
            .unwrap_or_default()
    }

    /// The packet with another identifier.
    fn numbered(&self, number: u16) -> Vec<u8> {
        let mut packet = self.packet.to_vec();
        if let Some(place) = packet.first_chunk_mut() {
            *place = number.to_be_bytes();
        }
        packet
    }
}

/// Why a name server did not answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel reports that there is no route, or that nobody listens.
    Unreachable,
    /// No socket is free.
    Busy,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Unreachable
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(_: rustix::io::Errno) -> Self {
        Self::Unreachable
    }
}

/// The sockets that send queries from a container's namespace.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: UdpPool,
    pub(crate) tcp_ipv4: TcpPool,
    pub(crate) tcp_ipv6: TcpPool,
}

impl Sockets {
    /// Asks one name server, for as long as the caller waits.
    pub(crate) async fn ask(
        &self,
        shared: &Rc<Shared>,
        upstream: &Upstream,
        question: &Question,
    ) -> Result<Vec<u8>, Failure> {
        match (upstream.origin, question.transport) {
            (Origin::Container, Transport::Udp) => self.udp.ask(shared, upstream, question).await,
            (Origin::Container, Transport::Tcp) if upstream.address.is_ipv4() => {
                self.tcp_ipv4.ask(shared, upstream, question).await
            }
            (Origin::Container, Transport::Tcp) => {
                self.tcp_ipv6.ask(shared, upstream, question).await
            }
            (Origin::Host, Transport::Udp) => host::ask_by_udp(shared, upstream, question).await,
            (Origin::Host, Transport::Tcp) => host::ask_by_tcp(shared, upstream, question).await,
        }
    }
}

/// The address of a name server. The index of a link is looked up each time, in the socket's
/// namespace, because a link that is created again has another index.
fn address(upstream: &Upstream, socket: impl AsFd) -> Result<SocketAddr, Failure> {
    Ok(match (upstream.address, &upstream.zone) {
        (IpAddr::V6(address), Some(zone)) => {
            let index = rustix::net::netdevice::name_to_index(socket, zone)?;
            SocketAddrV6::new(address, upstream.port, 0, index).into()
        }
        (address, _) => SocketAddr::new(address, upstream.port),
    })
}
