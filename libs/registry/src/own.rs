//! Whether an address belongs to this machine.
//!
//! Services that listen on this machine and trust local clients must not be reachable through a
//! registry's redirect, or through a DNS name of one of these addresses. Names are judged by the
//! addresses that they resolve to, at the moment of the connection, and the connection goes to the
//! very address that was judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether connections to an address stay on this machine or on its link.
pub(crate) fn is_own(address: IpAddr) -> bool {
    let address = embedded(address);
    is_special(address) || is_delivered_here(address)
}

/// An IPv4 address that is embedded in an IPv6 address.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let v4 =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        // Mapped (RFC 4291, section 2.5.5.2), NAT64 (RFC 6052) and 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Compatible (RFC 4291, section 2.5.5.1); `::` and `::1` look like it.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => address,
    }
}

/// Loopback, unspecified (which means loopback for a connection) and link-local addresses.
/// Link-local ones include the metadata services of clouds.
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

/// Whether the kernel would deliver to this machine: then it chooses the address itself as the
/// source. This covers the addresses of all interfaces, and local routes. Nothing is sent.
fn is_delivered_here(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let Ok(socket) = UdpSocket::bind((any, 0)) else {
        // Without the address family there would be no connection either. If descriptors are short,
        // refusing is safer.
        return true;
    };
    // Any port but 0.
    match socket.connect(SocketAddr::new(address, 9)) {
        Ok(()) => socket.local_addr().is_ok_and(|own| own.ip() == address),
        // It can't be reached.
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use nix::ifaddrs::getifaddrs;

    use super::*;

    #[test]
    fn own_addresses_are_known_in_every_form() {
        for own in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1",
        ] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in [
            "192.0.2.1",
            "2001:db8::1",
            "::ffff:192.0.2.1",
            "10.255.255.1",
        ] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn addresses_of_all_interfaces_are_own() {
        for interface in getifaddrs().unwrap() {
            let Some(address) = interface.address else {
                continue;
            };
            let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) => IpAddr::V6(v6.ip()),
                _ => continue,
            };
            assert!(is_own(address), "{address}");
        }
    }
}
