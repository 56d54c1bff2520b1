//! Address management: allocates subnets to networks, and addresses to containers. Pure: no I/O, no
//! clock, no random numbers. Addresses are numbers of 128 bits, and a pool is never expanded to a
//! list: an IPv6 subnet has more addresses than fit into memory.
//!
//! - `block`: prefixes and ranges as numbers.
//! - `pools`: the pools of automatic subnets.
//! - `check`: checks requested subnets.
//! - `subnets`: chooses the subnets of a new network.
//! - `addresses`: the addresses of one subnet; `space`: those of a network.

mod addresses;
mod block;
mod check;
mod pools;
mod space;
mod subnets;

pub use addresses::NotFree;
pub(crate) use block::{masked, overlap};
pub use pools::{AddressPool, PoolError, Pools};
pub use space::AddressError;
pub(crate) use space::Space;
pub use subnets::SubnetError;
pub(crate) use subnets::{SubnetRequest, allocate_subnets};

#[cfg(test)]
mod tests;
