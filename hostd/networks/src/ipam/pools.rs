//! The pools of automatic subnets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_model::ip::IpPrefix;
use sha2::{Digest, Sha256};

use super::block::{Block, address, bits, masked, size_less_one};

/// A range that is divided into subnets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// The whole range.
    pub base: IpPrefix,
    /// Prefix length of each subnet, at least that of the base.
    pub size: u8,
}

/// Why a pool is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "address pool {base} with subnets of /{size}: the size must be between {} and {limit}", base.length
)]
pub struct PoolError {
    base: IpPrefix,
    size: u8,
    limit: u8,
}

impl AddressPool {
    /// Makes a pool. Host bits of the base are ignored.
    ///
    /// # Errors
    /// The subnets would be larger than the range, or too small for two containers.
    pub fn new(base: IpPrefix, size: u8) -> Result<Self, PoolError> {
        let limit = bits(base.address.is_ipv6()) - 2;
        match (base.length..=limit).contains(&size) {
            true => Ok(Self {
                base: masked(base),
                size,
            }),
            false => Err(PoolError { base, size, limit }),
        }
    }

    /// The first subnet of the pool that overlaps with none of `taken`.
    fn free(&self, taken: &[Block]) -> Option<IpPrefix> {
        let whole = Block::of(self.base);
        let more = size_less_one(whole.ipv6, self.size);
        let mut first = whole.first;
        // Each round passes at least one of `taken`, which never matters again.
        loop {
            let candidate = Block {
                ipv6: whole.ipv6,
                first,
                last: first.checked_add(more)?,
            };
            if !whole.contains(candidate) {
                return None;
            }
            let in_the_way = taken.iter().filter(|other| other.overlaps(candidate));
            let Some(last) = in_the_way.map(|other| other.last).max() else {
                return Some(IpPrefix {
                    address: address(whole.ipv6, first),
                    length: self.size,
                });
            };
            // The next multiple of the size.
            first = (last.max(candidate.last) | more).checked_add(1)?;
        }
    }
}

/// The pools of an engine. The first one with a free subnet is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools(Vec<AddressPool>);

impl Pools {
    /// Makes the pools from the configured ones. A family without any gets Docker's.
    pub fn new(asked: &[AddressPool], engine: &str) -> Self {
        let mut all = asked.to_vec();
        for ipv6 in [false, true] {
            if !asked.iter().any(|pool| pool.base.address.is_ipv6() == ipv6) {
                match ipv6 {
                    false => all.extend(usual_ipv4()),
                    true => all.push(unique_local(engine)),
                }
            }
        }
        Self(all)
    }

    /// All pools, in the order in which they are used.
    pub fn all(&self) -> &[AddressPool] {
        &self.0
    }

    /// A free subnet of a family.
    pub(crate) fn free(&self, ipv6: bool, taken: &[Block]) -> Option<IpPrefix> {
        let pools = self.0.iter();
        let mut pools = pools.filter(|pool| pool.base.address.is_ipv6() == ipv6);
        pools.find_map(|pool| pool.free(taken))
    }
}

/// Docker's pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in parts of /20.
fn usual_ipv4() -> impl Iterator<Item = AddressPool> {
    let pool = |a, b, length, size| AddressPool {
        base: IpPrefix {
            address: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)),
            length,
        },
        size,
    };
    [
        pool(172, 17, 16, 16),
        pool(172, 18, 16, 16),
        pool(172, 19, 16, 16),
        pool(172, 20, 14, 16),
        pool(172, 24, 14, 16),
        pool(172, 28, 14, 16),
        pool(192, 168, 16, 20),
    ]
    .into_iter()
}

/// Subnets of /64 from a unique local prefix (RFC 4193) that is always the same for an engine, and
/// differs from those of other engines.
fn unique_local(engine: &str) -> AddressPool {
    let digest = Sha256::digest(format!("local addresses of {engine}"));
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    // A global identifier of 40 bits; the next 16 bits are for subnets.
    for (byte, random) in bytes.iter_mut().skip(1).take(5).zip(digest) {
        *byte = random;
    }
    AddressPool {
        base: IpPrefix {
            address: IpAddr::V6(Ipv6Addr::from(bytes)),
            length: 48,
        },
        size: 64,
    }
}
