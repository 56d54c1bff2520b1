//! ARP packets for the detection of address conflicts (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

/// `02:00:00:00:00:01`.
pub(crate) fn mac_text(mac: &Mac) -> String {
    let parts: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpPacket {
    /// Request (`true`) or reply.
    pub request: bool,
    /// Hardware address of the sender.
    pub sender_mac: Mac,
    /// Address of the sender; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// The requested address.
    pub target: Ipv4Addr,
}

/// Ethernet, IPv4, lengths 6 and 4.
const PREAMBLE: [u8; 6] = [0, 1, 8, 0, 6, 4];

impl ArpPacket {
    /// Asks "does anybody use this address?" without claiming it (RFC 5227 §2.1.1).
    #[must_use]
    pub fn probe(mac: Mac, target: Ipv4Addr) -> Self {
        Self {
            request: true,
            sender_mac: mac,
            sender: Ipv4Addr::UNSPECIFIED,
            target,
        }
    }

    /// Announces "we use this address", which also updates stale caches (RFC 5227 §2.3).
    #[must_use]
    pub fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            request: true,
            sender_mac: mac,
            sender: address,
            target: address,
        }
    }

    /// Reads the bytes after the Ethernet header. `None` if they are not ARP for IPv4 over
    /// Ethernet.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&PREAMBLE)?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let request = match u16::from_be_bytes(*operation) {
            1 => true,
            2 => false,
            _ => return None,
        };
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (target, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            request,
            sender_mac: *sender_mac,
            sender: Ipv4Addr::from(*sender),
            target: Ipv4Addr::from(*target),
        })
    }

    /// The bytes after the Ethernet header.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        out.extend(PREAMBLE);
        out.extend(if self.request { [0, 1] } else { [0, 2] });
        out.extend(self.sender_mac);
        out.extend(self.sender.octets());
        out.extend([0; 6]);
        out.extend(self.target.octets());
        out
    }

    /// Whether the packet shows that another machine uses `address` or will use it (RFC 5227
    /// §2.1.1): it names the address as its own, or probes for it like us.
    #[must_use]
    pub fn conflicts(&self, mac: Mac, address: Ipv4Addr) -> bool {
        if self.sender_mac == mac {
            return false;
        }
        let probes_same = self.request && self.sender.is_unspecified() && self.target == address;
        self.sender == address || probes_same
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    #[test]
    fn round_trip() {
        for packet in [
            ArpPacket::probe(OURS, ADDRESS),
            ArpPacket::announcement(OURS, ADDRESS),
        ] {
            assert_eq!(ArpPacket::parse(&packet.to_bytes()), Some(packet));
            assert_eq!(packet.to_bytes().len(), 28);
        }
    }

    #[test]
    fn conflicts_as_rfc_5227_says() {
        let reply = ArpPacket {
            request: false,
            ..ArpPacket::announcement(THEIRS, ADDRESS)
        };
        assert!(reply.conflicts(OURS, ADDRESS));
        assert!(ArpPacket::probe(THEIRS, ADDRESS).conflicts(OURS, ADDRESS));
        assert!(!ArpPacket::probe(OURS, ADDRESS).conflicts(OURS, ADDRESS));
        let asks = ArpPacket {
            sender: Ipv4Addr::new(192, 0, 2, 8),
            ..ArpPacket::probe(THEIRS, ADDRESS)
        };
        assert!(!asks.conflicts(OURS, ADDRESS));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ArpPacket::parse(&bytes);
            let mut with_preamble = PREAMBLE.to_vec();
            with_preamble.extend(&bytes);
            let _ = ArpPacket::parse(&with_preamble);
        }
    }
}
