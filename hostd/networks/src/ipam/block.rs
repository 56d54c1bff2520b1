//! Prefixes and ranges of addresses as numbers. IPv4 uses the lowest 32 of 128 bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_model::ip::IpPrefix;

/// Addresses of one family from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) ipv6: bool,
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl Block {
    /// All addresses of a prefix. Host bits of its address are ignored.
    pub(crate) fn of(prefix: IpPrefix) -> Self {
        let ipv6 = prefix.address.is_ipv6();
        let hosts = hosts(ipv6, prefix.length);
        let first = number(prefix.address) & !hosts;
        Self {
            ipv6,
            first,
            last: first | hosts,
        }
    }

    pub(crate) const fn holds(self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }

    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.ipv6 == other.ipv6 && self.first <= other.last && other.first <= self.last
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.ipv6 == other.ipv6 && self.first <= other.first && other.last <= self.last
    }
}

/// Number of bits of an address.
pub(crate) const fn bits(ipv6: bool) -> u8 {
    match ipv6 {
        true => 128,
        false => 32,
    }
}

/// The mask of the host bits.
fn hosts(ipv6: bool, length: u8) -> u128 {
    let width = u32::from(bits(ipv6).saturating_sub(length));
    match width {
        0 => 0,
        // A shift by 128 overflows.
        width => u128::MAX >> (128 - width),
    }
}

/// The number of addresses of a prefix of this length, minus one.
pub(crate) fn size_less_one(ipv6: bool, length: u8) -> u128 {
    hosts(ipv6, length)
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(crate) fn address(ipv6: bool, number: u128) -> IpAddr {
    match ipv6 {
        true => Ipv6Addr::from_bits(number).into(),
        // IPv4 numbers have no higher bits.
        false => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
    }
}

/// The prefix with zero host bits.
pub(crate) fn masked(prefix: IpPrefix) -> IpPrefix {
    let block = Block::of(prefix);
    IpPrefix {
        address: address(block.ipv6, block.first),
        length: prefix.length,
    }
}

/// Whether two prefixes have an address in common.
pub(crate) fn overlap(one: IpPrefix, other: IpPrefix) -> bool {
    Block::of(one).overlaps(Block::of(other))
}
