//! Address management: which subnets networks have, and which addresses in them are free. Pure: no
//! I/O, no clock, no chance. Addresses are numbers of 128 bits, and a pool is never made into a list:
//! an IPv6 subnet has more addresses than any memory.
//!
//! - `block`: prefixes and ranges as numbers.
//! - `pools`: from where subnets are taken that nobody asked for.
//! - `check`: whether the subnets that somebody asks for make sense.
//! - `subnets`: the subnets of a new network.
//! - `addresses`: the addresses of one subnet; `space`: those of a network.

mod addresses;
mod block;
mod check;
mod pools;
mod space;
mod subnets;

pub(crate) use block::{masked, overlap};
pub use pools::{AddressPool, PoolError, Pools};
pub use space::AddressError;
pub(crate) use space::Space;
pub use subnets::SubnetError;
pub(crate) use subnets::{SubnetRequest, allocate_subnets};

#[cfg(test)]
mod tests;
