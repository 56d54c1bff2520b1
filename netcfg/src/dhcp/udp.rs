//! IPv4 and UDP headers, for the time while the link has no address and the kernel's own UDP can't
//! be used (RFC 791, RFC 768).

use std::net::Ipv4Addr;

/// The port of DHCP servers.
pub const SERVER_PORT: u16 = 67;
/// The port of DHCP clients.
pub const CLIENT_PORT: u16 = 68;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// Why a packet is not a datagram for a DHCP client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// A header or the payload is cut off, or a length in a header is impossible.
    #[error("a length in the packet is impossible")]
    Length,
    /// Not IPv4.
    #[error("not an IPv4 packet")]
    Version,
    /// A fragment: servers don't fragment messages of the size that we ask for.
    #[error("a fragment")]
    Fragment,
    /// The protocol is not UDP.
    #[error("not UDP")]
    Protocol,
    /// The ports are not those of a server's answer to a client.
    #[error("not from port 67 to port 68")]
    Ports,
    /// A checksum is wrong.
    #[error("a checksum is wrong")]
    Checksum,
}

/// The payload of a UDP datagram from a DHCP server to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender.
    pub source: Ipv4Addr,
    /// The payload.
    pub payload: &'a [u8],
}

/// Checks the headers of an IPv4 packet and returns the payload.
///
/// `checksum_pending`: the packet never left this machine, and its UDP checksum was left to
/// hardware. Then the checksum is not compared.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(packet: &[u8], checksum_pending: bool) -> Result<Datagram<'_>, PacketError> {
    let first = *packet.first().ok_or(PacketError::Length)?;
    if first >> 4 != 4 {
        return Err(PacketError::Version);
    }
    let header_length = usize::from(first & 0x0f) * 4;
    if header_length < IP_HEADER {
        return Err(PacketError::Length);
    }
    let header = packet.get(..header_length).ok_or(PacketError::Length)?;
    let total = usize::from(u16_at(header, 2)?);
    // Ethernet pads short packets: bytes after the total length are not part of the packet.
    let body = packet
        .get(header_length..total)
        .ok_or(PacketError::Length)?;
    if sum(&[header]) != 0xffff {
        return Err(PacketError::Checksum);
    }
    // More-fragments flag or an offset.
    if u16_at(header, 6)? & 0x3fff != 0 {
        return Err(PacketError::Fragment);
    }
    if header.get(9) != Some(&PROTOCOL_UDP) {
        return Err(PacketError::Protocol);
    }
    let source = address_at(header, 12)?;
    let destination = address_at(header, 16)?;

    if (u16_at(body, 0)?, u16_at(body, 2)?) != (SERVER_PORT, CLIENT_PORT) {
        return Err(PacketError::Ports);
    }
    let length = usize::from(u16_at(body, 4)?);
    let datagram = body.get(..length).ok_or(PacketError::Length)?;
    let payload = datagram.get(UDP_HEADER..).ok_or(PacketError::Length)?;
    // Zero means that the sender did not compute one.
    if !checksum_pending && u16_at(body, 6)? != 0 {
        let pseudo = pseudo_header(source, destination, length as u16);
        if sum(&[&pseudo, datagram]) != 0xffff {
            return Err(PacketError::Checksum);
        }
    }
    Ok(Datagram { source, payload })
}

/// Makes the IPv4 packet of a client's datagram to all servers of the link. `source` is
/// 0.0.0.0 while the link has no address.
///
/// # Errors
/// [`PacketError::Length`] when the payload does not fit into a packet.
pub fn build(source: Ipv4Addr, payload: &[u8]) -> Result<Vec<u8>, PacketError> {
    let destination = Ipv4Addr::BROADCAST;
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).map_err(|_| PacketError::Length)?;
    let total = udp_length
        .checked_add(IP_HEADER as u16)
        .ok_or(PacketError::Length)?;

    let mut udp = Vec::with_capacity(usize::from(udp_length));
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    let pseudo = pseudo_header(source, destination, udp_length);
    let mut checksum = !sum(&[&pseudo, &udp, &[0, 0], payload]);
    if checksum == 0 {
        // Zero would say "no checksum".
        checksum = 0xffff;
    }
    udp.extend(checksum.to_be_bytes());
    udp.extend(payload);

    let mut packet = Vec::with_capacity(usize::from(total));
    // Version 4, five words of header, precedence "internetwork control" as DHCP clients use it.
    packet.extend([0x45, 0xc0]);
    packet.extend(total.to_be_bytes());
    // Identification, don't fragment, time to live, protocol.
    packet.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP]);
    let addresses = [source.octets(), destination.octets()].concat();
    let checksum = !sum(&[&packet, &[0, 0], &addresses]);
    packet.extend(checksum.to_be_bytes());
    packet.extend(addresses);
    packet.extend(udp);
    Ok(packet)
}

fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> [u8; 12] {
    let [a, b, c, d] = source.octets();
    let [e, f, g, h] = destination.octets();
    let [i, j] = length.to_be_bytes();
    [a, b, c, d, e, f, g, h, 0, PROTOCOL_UDP, i, j]
}

/// The Internet checksum's one's complement sum (RFC 1071). All parts but the last must have an
/// even length.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            let word = match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                [high] => u16::from_be_bytes([*high, 0]),
                _ => 0,
            };
            total += u64::from(word);
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, PacketError> {
    match bytes.get(offset..offset + 2) {
        Some([high, low]) => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(PacketError::Length),
    }
}

fn address_at(bytes: &[u8], offset: usize) -> Result<Ipv4Addr, PacketError> {
    match bytes.get(offset..offset + 4) {
        Some([a, b, c, d]) => Ok(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => Err(PacketError::Length),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's packet, made from a client's by exchanging the ports (which does not change the
    /// checksums).
    pub(crate) fn from_server(source: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = build(source, payload).unwrap();
        packet.swap(21, 23);
        packet
    }

    #[test]
    fn built_packets_are_parsed() {
        for payload in [&b""[..], b"a", b"ab", &[0xff; 1001]] {
            let packet = from_server(Ipv4Addr::new(192, 0, 2, 1), payload);
            let parsed = parse(&packet, false).unwrap();
            assert_eq!(parsed.payload, payload);
            assert_eq!(parsed.source, Ipv4Addr::new(192, 0, 2, 1));
        }
    }

    #[test]
    fn padding_is_cut_off() {
        let mut packet = from_server(Ipv4Addr::UNSPECIFIED, b"abc");
        packet.extend([0; 20]);
        assert_eq!(parse(&packet, false).unwrap().payload, b"abc");
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let packet = from_server(Ipv4Addr::new(192, 0, 2, 1), b"payload!");
        for bit in 0..packet.len() * 8 {
            let mut wrong = packet.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&wrong, false).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_pending_checksum_is_not_compared() {
        let mut packet = from_server(Ipv4Addr::new(192, 0, 2, 1), b"abc");
        packet[26] ^= 0x55;
        assert_eq!(parse(&packet, false), Err(PacketError::Checksum));
        assert!(parse(&packet, true).is_ok());
    }

    #[test]
    fn an_absent_checksum_is_allowed() {
        let mut packet = from_server(Ipv4Addr::new(192, 0, 2, 1), b"abc");
        packet[26..28].fill(0);
        assert!(parse(&packet, false).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(
            mut packet in proptest::collection::vec(any::<u8>(), 0..200),
            pending in any::<bool>(),
            valid_version in any::<bool>(),
        ) {
            if valid_version && let Some(first) = packet.first_mut() {
                *first = 0x45;
            }
            let _ = parse(&packet, pending);
        }
    }
}
