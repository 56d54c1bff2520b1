//! The sockets in a container's network namespace. hostd opens them, because the resolver may not
//! enter the namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// The largest number of descriptors in one message. The kernel's limit is 253.
pub const MAX_DESCRIPTORS: usize = 32;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketKind {
    /// Receives the container's queries over UDP. There is one.
    UdpListener,
    /// Accepts the container's queries over TCP. There is one.
    TcpListener,
    /// Asks name servers over UDP. An IPv6 socket reaches IPv4 servers as well (ipv6(7),
    /// IPV6_V6ONLY).
    Udp,
    /// Asks name servers over TCP and IPv4.
    TcpIpv4,
    /// Asks name servers over TCP and IPv6. A separate socket, because one that was connected to an
    /// IPv4 address can't be connected to an IPv6 address later.
    TcpIpv6,
    /// A pidfd that becomes readable when the container has ended. The resolver then forgets the
    /// container and closes its sockets, which would keep its network namespace alive.
    Life,
}

/// The ports of 127.0.0.11 on which a container is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The UDP port.
    pub udp: u16,
    /// The TCP port.
    pub tcp: u16,
}

/// The sockets of one container.
#[derive(Debug)]
pub struct Sockets {
    /// Receives the container's queries over UDP.
    pub udp_listener: OwnedFd,
    /// Accepts the container's queries over TCP.
    pub tcp_listener: OwnedFd,
    /// Ask name servers over UDP.
    pub udp: Vec<OwnedFd>,
    /// Ask name servers over TCP and IPv4.
    pub tcp_ipv4: Vec<OwnedFd>,
    /// Ask name servers over TCP and IPv6; empty if the kernel has no IPv6.
    pub tcp_ipv6: Vec<OwnedFd>,
    /// Becomes readable when the container has ended.
    pub life: Option<OwnedFd>,
}

/// Why descriptors are not the sockets of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketsError {
    /// Their number differs from what the message says.
    #[error("{came} descriptors arrived, but {said} were announced")]
    Number {
        /// How many came.
        came: usize,
        /// How many were announced.
        said: usize,
    },
    /// A required descriptor is missing.
    #[error("no descriptor of the kind {0:?}")]
    Missing(SocketKind),
    /// There are several of a kind that may occur once.
    #[error("several descriptors of the kind {0:?}")]
    Twice(SocketKind),
}

impl Sockets {
    /// Makes sockets of descriptors and their kinds.
    ///
    /// # Errors
    /// Some are missing or too many. All of them are closed then.
    pub fn from_descriptors(
        kinds: &[SocketKind],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, SocketsError> {
        if kinds.len() != descriptors.len() {
            return Err(SocketsError::Number {
                came: descriptors.len(),
                said: kinds.len(),
            });
        }
        let (mut udp_listener, mut tcp_listener, mut life) = (None, None, None);
        let (mut udp, mut tcp_ipv4, mut tcp_ipv6) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, descriptor) in kinds.iter().zip(descriptors) {
            let only = match kind {
                SocketKind::UdpListener => &mut udp_listener,
                SocketKind::TcpListener => &mut tcp_listener,
                SocketKind::Life => &mut life,
                SocketKind::Udp => {
                    udp.push(descriptor);
                    continue;
                }
                SocketKind::TcpIpv4 => {
                    tcp_ipv4.push(descriptor);
                    continue;
                }
                SocketKind::TcpIpv6 => {
                    tcp_ipv6.push(descriptor);
                    continue;
                }
            };
            if only.replace(descriptor).is_some() {
                return Err(SocketsError::Twice(*kind));
            }
        }
        Ok(Self {
            udp_listener: udp_listener.ok_or(SocketsError::Missing(SocketKind::UdpListener))?,
            tcp_listener: tcp_listener.ok_or(SocketsError::Missing(SocketKind::TcpListener))?,
            udp,
            tcp_ipv4,
            tcp_ipv6,
            life,
        })
    }

    /// Their kinds and descriptors, in one order.
    #[must_use]
    pub fn descriptors(&self) -> (Vec<SocketKind>, Vec<BorrowedFd<'_>>) {
        fn all(
            kind: SocketKind,
            list: &[OwnedFd],
        ) -> impl Iterator<Item = (SocketKind, BorrowedFd<'_>)> {
            list.iter().map(move |fd| (kind, fd.as_fd()))
        }
        [
            (SocketKind::UdpListener, self.udp_listener.as_fd()),
            (SocketKind::TcpListener, self.tcp_listener.as_fd()),
        ]
        .into_iter()
        .chain(all(SocketKind::Udp, &self.udp))
        .chain(all(SocketKind::TcpIpv4, &self.tcp_ipv4))
        .chain(all(SocketKind::TcpIpv6, &self.tcp_ipv6))
        .chain(self.life.iter().map(|fd| (SocketKind::Life, fd.as_fd())))
        .unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn descriptors_are_recognised_by_their_order() {
        use SocketKind::{Life, TcpIpv4, TcpListener, Udp, UdpListener};
        let kinds = [UdpListener, TcpListener, Udp, Udp, TcpIpv4, Life];
        let descriptors = || kinds.iter().map(|_| descriptor()).collect();
        let sockets = Sockets::from_descriptors(&kinds, descriptors()).unwrap();
        assert_eq!((sockets.udp.len(), sockets.tcp_ipv4.len()), (2, 1));
        assert!(sockets.life.is_some() && sockets.tcp_ipv6.is_empty());
        assert_eq!(sockets.descriptors().0, kinds);

        let error = |kinds: &[SocketKind], count: usize| {
            let descriptors = (0..count).map(|_| descriptor()).collect();
            Sockets::from_descriptors(kinds, descriptors).unwrap_err()
        };
        let number = SocketsError::Number { came: 1, said: 6 };
        assert_eq!(error(&kinds, 1), number);
        let missing = SocketsError::Missing(TcpListener);
        assert_eq!(error(&[UdpListener, Udp], 2), missing);
        let twice = SocketsError::Twice(Life);
        assert_eq!(error(&[Life, Life], 2), twice);
    }
}
