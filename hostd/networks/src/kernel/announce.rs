//! Announces the hardware address of an interface's addresses to its neighbours, by ARP
//! announcements (RFC 5227, 3) and unsolicited neighbour advertisements (RFC 4861, 7.2.6).
//! Otherwise neighbours that knew the previous owner of an address keep sending to it for up to a
//! minute.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use keelson_model::spec::Mac;
use keelson_netlink::Link;
use keelson_sys::packet::{BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV6, PacketSender};

use super::plan::endpoint::{Attachment, EndpointPlan};

/// How often an announcement is sent, because a packet may be lost.
pub(super) const TIMES: u32 = 3;
/// The time between two announcements.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The announcement of one interface. It holds a socket in the container's namespace, and so that
/// namespace; closing it takes milliseconds.
#[derive(Debug)]
pub(super) struct Announcement {
    /// The endpoint's identifier.
    pub(super) endpoint: String,
    /// The link on the host that must be forwarding first, if there is one.
    pub(super) port: Option<String>,
    socket: PacketSender,
    mac: Mac,
    addresses: Vec<IpAddr>,
}

impl Announcement {
    /// Prepares the announcement of an interface. Call this in the container's namespace. `None` if
    /// it has no addresses or no hardware address of its own. `ipv6`: whether the container has
    /// IPv6.
    pub(super) fn open(plan: &EndpointPlan, link: &Link, ipv6: bool) -> io::Result<Option<Self>> {
        let Some(mac) = link.mac else {
            return Ok(None);
        };
        let addresses = plan.addresses.iter().map(|prefix| prefix.address);
        let addresses: Vec<_> = addresses
            .filter(|address| ipv6 || address.is_ipv4())
            .collect();
        if addresses.is_empty() || matches!(plan.attachment, Attachment::Ipvlan(..)) {
            return Ok(None);
        }
        Ok(Some(Self {
            endpoint: plan.id.clone(),
            port: plan.host_link().map(str::to_owned),
            socket: PacketSender::open(link.index)?,
            mac,
            addresses,
        }))
    }

    /// Sends the announcement once.
    pub(super) fn send(&self) -> io::Result<()> {
        for address in &self.addresses {
            match address {
                IpAddr::V4(address) => {
                    let packet = arp(self.mac, *address);
                    self.socket.send(ETHERTYPE_ARP, BROADCAST, &packet)?;
                }
                IpAddr::V6(address) => {
                    let packet = advertisement(self.mac, *address);
                    self.socket.send(ETHERTYPE_IPV6, ALL_NODES_MAC, &packet)?;
                }
            }
        }
        Ok(())
    }
}

/// The address of all nodes on a link, and its hardware address (RFC 2464, 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// An ARP request for the interface's own address (RFC 5227, 2.3). Hosts update their tables by it;
/// old ones do so for requests only.
fn arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(28);
    // Ethernet, IPv4, lengths of their addresses, request.
    packet.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    packet.extend(mac);
    packet.extend(address.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    packet
}

/// An unsolicited neighbour advertisement, with its IPv6 header.
fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let mut message = Vec::with_capacity(32);
    // Neighbour advertisement; the checksum comes later; override what was known.
    message.extend([136, 0, 0, 0, 0x20, 0, 0, 0]);
    message.extend(address.octets());
    // Target link-layer address, one unit of eight bytes.
    message.extend([2, 1]);
    message.extend(mac);
    let sum = checksum(address, ALL_NODES, ICMPV6, &message);
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    let length = u16::try_from(message.len()).unwrap_or_default();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    // A router would have decremented the hop limit, so 255 proves that the sender is a neighbour.
    packet.extend([ICMPV6, 255]);
    packet.extend(address.octets());
    packet.extend(ALL_NODES.octets());
    packet.extend(message);
    packet
}

/// The Internet checksum with IPv6's pseudo header (RFC 8200, 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2).map(|pair| {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([high, low]))
        });
        pairs.sum()
    };
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut sum = words(&source.octets()) + words(&destination.octets()) + length;
    sum += u32::from(protocol) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_is_valid() {
        let mac = [2, 0, 0, 0, 0, 9];
        let address: Ipv6Addr = "fd00::9".parse().unwrap();
        let packet = advertisement(mac, address);
        assert_eq!(packet.len(), 72);
        assert_eq!(packet[4..8], [0, 32, 58, 255]);
        // Summed with its own checksum, a message yields zero.
        assert_eq!(checksum(address, ALL_NODES, 58, &packet[40..]), 0);
        assert_eq!(packet[66..72], mac);
    }

    #[test]
    fn an_arp_request_asks_for_the_own_address() {
        let packet = arp([2, 0, 0, 0, 0, 9], [192, 0, 2, 9].into());
        assert_eq!(packet.len(), 28);
        assert_eq!(packet[8..14], [2, 0, 0, 0, 0, 9]);
        assert_eq!(packet[14..18], packet[24..28]);
    }
}
