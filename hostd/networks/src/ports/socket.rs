//! Reserves a port by a socket bound to it, so that a program of the host and a container can't
//! have the same port.
//!
//! A TCP socket does not listen: the packet filter redirects connections before they reach it, and
//! the kernel resets all others at once. If it listened, such connections would be accepted and
//! never served.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use keelson_model::spec::Protocol;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};

use super::holder;

/// A bound socket; `None` if the kernel does not have the protocol, so that nobody else can use the
/// port either.
pub(super) type Reserved = Option<OwnedFd>;

/// Whether this host has IPv6.
pub(super) fn host_has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

pub(super) fn reserve(protocol: Protocol, host: IpAddr, port: u16) -> Result<Reserved, Errno> {
    match attempt(protocol, host, port, false) {
        // Connections of a program that has ended linger for a minute. Every server ignores them by
        // this option. It makes our reservation weaker: a program that also uses it could take the
        // port.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp && holder::only_lingers(host, port) => {
            attempt(protocol, host, port, true)
        }
        other => other,
    }
}

fn attempt(protocol: Protocol, host: IpAddr, port: u16, reuse: bool) -> Result<Reserved, Errno> {
    let family = match host {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)) {
        Ok(socket) => socket,
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if host.is_ipv6() {
        // IPv4 has a separate socket.
        set_ipv6_v6only(&socket, true)?;
    }
    // Never for UDP, where it would let two programs have one port.
    if reuse {
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(host, port))?;
    Ok(Some(socket))
}
