//! Rules: comparisons, look-ups, and what follows from them.

use std::net::SocketAddr;

use crate::object::Family;
use crate::value::{Value, Verdict, name_bytes};
use crate::wire::Writer;

/// A field of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Name of the link by which it came in.
    InputName,
    /// Name of the link by which it goes out.
    OutputName,
    /// The protocol above IP.
    Protocol,
    /// Where it comes from. Meaningful after [`Rule::family`].
    SourceIpv4,
    /// Where it goes. Meaningful after [`Rule::family`].
    DestinationIpv4,
    /// Where it comes from. Meaningful after [`Rule::family`].
    SourceIpv6,
    /// Where it goes. Meaningful after [`Rule::family`].
    DestinationIpv6,
    /// Where it goes. Has no meaning for protocols without ports, so compare the protocol too.
    DestinationPort,
}

impl Field {
    /// Number of register bytes that it takes.
    const fn space(self) -> u32 {
        match self {
            Self::InputName | Self::OutputName | Self::SourceIpv6 | Self::DestinationIpv6 => 16,
            _ => 4,
        }
    }
}

/// How the sender learns that its packet was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset. Has an effect only after `protocol(6)`.
    Reset,
    /// The ICMP message "port unreachable".
    PortUnreachable,
}

/// Keys of look-ups are loaded into registers of four bytes, starting with the first one. A
/// register at a multiple of 16 bytes also has an older number, and the kernel lists it by that.
const fn register(index: u32) -> u32 {
    match index % 4 {
        0 => 1 + index / 4,
        _ => 8 + index,
    }
}

const VERDICT_REGISTER: u32 = 0;
/// Bits of the state of a connection: established, and related to one that is.
const KNOWN_STATES: u32 = 0b110;
/// Bit of the status of a connection: its destination was changed.
const DESTINATION_CHANGED: u32 = 0x20;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// A rule. Its parts are evaluated in order; the first one that does not match ends it.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(crate) chain: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) expressions: Writer,
}

impl Rule {
    /// An empty rule for the end of a chain.
    #[must_use]
    pub fn new(chain: &'static str) -> Self {
        Self {
            chain,
            comment: "",
            expressions: Writer::default(),
        }
    }

    /// Adds a comment that `nft list` shows, of at most 100 bytes.
    #[must_use]
    pub const fn comment(mut self, comment: &'static str) -> Self {
        self.comment = comment;
        self
    }

    /// Matches packets of IPv4 or of IPv6.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        self.meta(15, 0).compare(0, true, &[family.number()])
    }

    /// Matches packets of a protocol above IP.
    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.meta(16, 0).compare(0, true, &[number])
    }

    /// Matches packets that come in by a link.
    #[must_use]
    pub fn input(self, name: &str) -> Self {
        self.meta(6, 0).compare(0, true, &name_bytes(name))
    }

    /// Matches packets that come in by any other link.
    #[must_use]
    pub fn not_input(self, name: &str) -> Self {
        self.meta(6, 0).compare(0, false, &name_bytes(name))
    }

    /// Packets whose mark has this value in the bits of a mask.
    #[must_use]
    pub fn marked(self, value: u32, mask: u32) -> Self {
        self.meta(3, 0)
            .mask(0, &mask.to_ne_bytes())
            .compare(0, true, &(value & mask).to_ne_bytes())
    }

    /// Packets whose field is within a network: the first `bits` bits are those of the address.
    #[must_use]
    pub fn within(self, field: Field, network: &Value, bits: u32) -> Self {
        let bytes = crate::value::join(std::slice::from_ref(network));
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let mask: Vec<u8> = (0..length)
            .map(|byte| match bits.saturating_sub(8 * byte) {
                left @ 0..8 => !(0xff_u8 >> left),
                _ => 0xff,
            })
            .collect();
        let rule = self.load(field, 0);
        let rule = match mask.iter().all(|byte| *byte == 0xff) {
            true => rule,
            false => rule.mask(0, &mask),
        };
        rule.compare(0, true, &bytes)
    }

    /// Matches packets to an address of this machine.
    #[must_use]
    pub fn to_local(self) -> Self {
        self.route_type(2)
    }

    /// Matches packets from an address of this machine.
    #[must_use]
    pub fn from_local(self) -> Self {
        self.route_type(1)
    }

    /// Matches packets of established connections, and ICMP errors about them.
    #[must_use]
    pub fn known(self) -> Self {
        self.connection(0, KNOWN_STATES)
    }

    /// Matches packets of connections whose destination a NAT chain has changed.
    #[must_use]
    pub fn redirected(self) -> Self {
        self.connection(2, DESTINATION_CHANGED)
    }

    /// Matches packets whose fields, in this order, are in a set.
    #[must_use]
    pub fn member(self, fields: &[Field], set: &str) -> Self {
        self.look_up(fields, set, None)
    }

    /// Packets whose fields, in their order, are no member of a set.
    #[must_use]
    pub fn not_member(self, fields: &[Field], set: &str) -> Self {
        self.look_up_with(fields, set, None, true)
    }

    /// Does what a map has for the fields, if anything.
    #[must_use]
    pub fn verdict_of(self, fields: &[Field], map: &str) -> Self {
        self.look_up(fields, map, Some(VERDICT_REGISTER))
    }

    /// Changes the destination of the connection to the address and port that a map holds for the
    /// fields.
    #[must_use]
    pub fn destination_of(self, family: Family, fields: &[Field], map: &str) -> Self {
        let port = match family {
            Family::Ipv6 => 4,
            _ => 1,
        };
        self.look_up(fields, map, Some(register(0)))
            .translate(1, family, Some(port))
    }

    /// Changes the source of the connection to the address that a map holds for the fields.
    #[must_use]
    pub fn source_of(self, family: Family, fields: &[Field], map: &str) -> Self {
        self.look_up(fields, map, Some(register(0)))
            .translate(0, family, None)
    }

    /// Changes the destination of the connection.
    #[must_use]
    pub fn destination(self, to: SocketAddr) -> Self {
        let port = to.port().to_be_bytes();
        let rule = match to {
            SocketAddr::V4(to) => self.immediate(0, &to.ip().octets()),
            SocketAddr::V6(to) => self.immediate(0, &to.ip().octets()),
        };
        let (family, register) = match to.is_ipv4() {
            true => (Family::Ipv4, 1),
            false => (Family::Ipv6, 4),
        };
        let rule = rule.immediate(register, &port);
        rule.translate(1, family, Some(register))
    }

    /// Changes the source of the connection to the address of the outgoing link.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Drops the packet and tells its sender.
    #[must_use]
    pub fn reject(self, how: Reject) -> Self {
        self.expression("reject", |writer| match how {
            Reject::Reset => {
                writer.number(1, 1);
                writer.attribute(2, &[0]);
            }
            // This code means the same in the ICMP messages of both families.
            Reject::PortUnreachable => {
                writer.number(1, 2);
                writer.attribute(2, &[1]);
            }
        })
    }

    /// Counts packets and bytes.
    #[must_use]
    pub fn counter(self) -> Self {
        self.expression("counter", |_| {})
    }

    /// Decides the packet.
    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |writer| {
            writer.number(1, VERDICT_REGISTER);
            writer.nested(2, |writer| verdict.write(writer));
        })
    }
}

/// The expressions of which rules consist.
impl Rule {
    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Self {
        self.expressions.nested(1, |writer| {
            writer.text(1, name);
            writer.nested(2, fill);
        });
        self
    }

    fn meta(self, key: u32, to: u32) -> Self {
        self.expression("meta", |writer| {
            writer.number(1, register(to));
            writer.number(2, key);
        })
    }

    fn load(self, field: Field, to: u32) -> Self {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let (base, offset, length) = match field {
            Field::InputName => return self.meta(6, to),
            Field::OutputName => return self.meta(7, to),
            Field::Protocol => return self.meta(16, to),
            Field::SourceIpv4 => (NETWORK, 12, 4),
            Field::DestinationIpv4 => (NETWORK, 16, 4),
            Field::SourceIpv6 => (NETWORK, 8, 16),
            Field::DestinationIpv6 => (NETWORK, 24, 16),
            Field::DestinationPort => (TRANSPORT, 2, 2),
        };
        self.expression("payload", |writer| {
            writer.number(1, register(to));
            writer.number(2, base);
            writer.number(3, offset);
            writer.number(4, length);
        })
    }

    fn mask(self, at: u32, mask: &[u8]) -> Self {
        self.expression("bitwise", |writer| {
            writer.number(1, register(at));
            writer.number(2, register(at));
            writer.number(3, u32::try_from(mask.len()).unwrap_or(0));
            writer.nested(4, |writer| writer.attribute(1, mask));
            writer.nested(5, |writer| writer.attribute(1, &vec![0; mask.len()]));
        })
    }

    fn compare(self, at: u32, equal: bool, bytes: &[u8]) -> Self {
        self.expression("cmp", |writer| {
            writer.number(1, register(at));
            writer.number(2, u32::from(!equal));
            writer.nested(3, |writer| writer.attribute(1, bytes));
        })
    }

    fn immediate(self, at: u32, bytes: &[u8]) -> Self {
        self.expression("immediate", |writer| {
            writer.number(1, register(at));
            writer.nested(2, |writer| writer.attribute(1, bytes));
        })
    }

    /// Flags choose the address that is looked up in the routing table: 1 the source, 2 the
    /// destination.
    fn route_type(self, flags: u32) -> Self {
        let rule = self.expression("fib", |writer| {
            writer.number(1, register(0));
            writer.number(2, 3);
            writer.number(3, flags);
        });
        rule.compare(0, true, &LOCAL.to_ne_bytes())
    }

    fn connection(self, key: u32, bits: u32) -> Self {
        let rule = self.expression("ct", |writer| {
            writer.number(1, register(0));
            writer.number(2, key);
        });
        rule.mask(0, &bits.to_ne_bytes()).compare(0, false, &[0; 4])
    }

    fn look_up(self, fields: &[Field], set: &str, to: Option<u32>) -> Self {
        self.look_up_with(fields, set, to, false)
    }

    fn look_up_with(self, fields: &[Field], set: &str, to: Option<u32>, inverted: bool) -> Self {
        let mut rule = self;
        let mut at = 0;
        for field in fields {
            rule = rule.load(*field, at / 4);
            at += field.space();
        }
        rule.expression("lookup", |writer| {
            writer.text(1, set);
            writer.number(2, register(0));
            if let Some(to) = to {
                writer.number(3, to);
            }
            if inverted {
                writer.number(5, 1);
            }
        })
    }

    /// Changes an address to the one in the first register. `kind`: 0 the source, 1 the
    /// destination.
    fn translate(self, kind: u32, family: Family, port: Option<u32>) -> Self {
        self.expression("nat", |writer| {
            writer.number(1, kind);
            writer.number(2, u32::from(family.number()));
            writer.number(3, register(0));
            if let Some(port) = port {
                writer.number(5, register(port));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn registers_have_the_numbers_that_the_kernel_lists() {
        let numbers: Vec<_> = (0..6).map(register).collect();
        assert_eq!(numbers, [1, 9, 10, 11, 2, 13]);
    }

    #[test]
    fn masks_cover_the_bits_of_a_network() {
        let rule = |bits| {
            let network = Value::Ipv6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
            Rule::new("c").within(Field::DestinationIpv6, &network, bits)
        };
        let has = |rule: &Rule, bytes: &[u8]| {
            let all = rule.expressions.as_bytes();
            all.windows(bytes.len()).any(|window| window == bytes)
        };
        assert!(has(&rule(10), &[20, 0, 1, 0, 0xff, 0xc0, 0, 0, 0]));
        assert!(has(&rule(8), &[20, 0, 1, 0, 0xff, 0, 0, 0, 0]));
        assert!(!has(&rule(128), b"bitwise"));
    }
}
