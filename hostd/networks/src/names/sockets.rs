//! Opens the sockets in a container's network namespace with which the resolver serves it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keelson_nftables::{Netfilter, redirect};
use keelson_resolver_protocol::{Ports, Sockets};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

/// The address of the containers' resolver. A rule in the container's namespace redirects port 53
/// of it to the sockets' ports. So a container can itself serve names, at all of its addresses.
pub const ADDRESS: Ipv4Addr = redirect::ADDRESS;

/// UDP sockets for queries to name servers: one for each server that may be asked, and one more, so
/// that a new query gets a port of its own.
const UDP: usize = 4;
/// TCP sockets of each family for queries to name servers.
const TCP: usize = 2;
/// Length of the queue of connections.
const BACKLOG: i32 = 128;

/// Opens the sockets of a container and redirects port 53 to them, in the network namespace of the
/// calling thread. `before` are the earlier ports of the container, which are used again if they
/// are free. Pass the result to [`super::Names::set`].
///
/// # Errors
/// The kernel refuses: there are too many open files, the loopback link is down, or it has no nf_tables.
pub fn serve_here(before: Option<Ports>) -> io::Result<Sockets> {
    let sockets = open_sockets(before)?;
    let ports = ports(&sockets)?;
    let mut netfilter = Netfilter::open().map_err(io::Error::other)?;
    redirect::install(&mut netfilter, ports.udp, ports.tcp).map_err(io::Error::other)?;
    Ok(sockets)
}

/// The first part of [`serve_here`], for callers that open other sockets in the same visit. They
/// must redirect port 53 to [`ports`] ([`keelson_nftables::redirect`]).
///
/// # Errors
/// The kernel refuses: there are too many open files, or the loopback link is down.
pub fn open_sockets(before: Option<Ports>) -> io::Result<Sockets> {
    let udp_listener = open(AddressFamily::INET, SocketType::DGRAM)?;
    bind_to(udp_listener.as_fd(), before.map(|ports| ports.udp))?;
    let tcp_listener = open(AddressFamily::INET, SocketType::STREAM)?;
    bind_to(tcp_listener.as_fd(), before.map(|ports| ports.tcp))?;
    listen(&tcp_listener, BACKLOG)?;
    let several = |count: usize, family, kind| -> io::Result<Vec<OwnedFd>> {
        (0..count).map(|_| open(family, kind)).collect()
    };
    // If the kernel has no IPv6, the IPv4 sockets are enough.
    let udp = several(UDP, AddressFamily::INET6, SocketType::DGRAM)
        .or_else(|_| several(UDP, AddressFamily::INET, SocketType::DGRAM))?;
    for socket in &udp {
        // Overrides net.ipv6.bindv6only. IPv4 sockets don't have the option.
        let _ = rustix::net::sockopt::set_ipv6_v6only(socket, false);
    }
    Ok(Sockets {
        udp_listener,
        tcp_listener,
        udp,
        tcp_ipv4: several(TCP, AddressFamily::INET, SocketType::STREAM)?,
        tcp_ipv6: several(TCP, AddressFamily::INET6, SocketType::STREAM).unwrap_or_default(),
        life: None,
    })
}

/// The ports of [`ADDRESS`] to which the sockets are bound.
///
/// # Errors
/// They are not sockets.
pub fn ports(sockets: &Sockets) -> io::Result<Ports> {
    let port = |socket: BorrowedFd<'_>| {
        let address = SocketAddr::try_from(getsockname(socket)?)?;
        Ok::<u16, Errno>(address.port())
    };
    Ok(Ports {
        udp: port(sockets.udp_listener.as_fd())?,
        tcp: port(sockets.tcp_listener.as_fd())?,
    })
}

fn open(family: AddressFamily, kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, kind, flags, None)?)
}

/// Binds to a port, or to any free one if that port is taken.
fn bind_to(socket: BorrowedFd<'_>, port: Option<u16>) -> io::Result<()> {
    let at = |port| SocketAddrV4::new(ADDRESS, port);
    match bind(socket, &at(port.unwrap_or(0))) {
        Err(Errno::ADDRINUSE) if port.is_some() => Ok(bind(socket, &at(0))?),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody else uses ports of 127.0.0.11, so no namespace is needed.
    #[test]
    fn earlier_ports_are_used_again_if_they_are_free() {
        let sockets = open_sockets(None).unwrap();
        let before = ports(&sockets).unwrap();
        assert!(before.udp != 0 && before.tcp != 0);
        let others = open_sockets(Some(before)).unwrap();
        let other = ports(&others).unwrap();
        assert!(other.udp != before.udp && other.tcp != before.tcp);
        drop((sockets, others));
        let again = open_sockets(Some(before)).unwrap();
        assert_eq!(ports(&again).unwrap(), before);
        assert_eq!((again.udp.len(), again.tcp_ipv4.len()), (UDP, TCP));
    }
}
