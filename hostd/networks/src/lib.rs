//! Container networks.
//!
//! - `types`: what networks are, and the connections of running containers to them.
//! - `error`: what can go wrong, in Docker's words.
//! - `options`: from a driver's options to what it does.
//! - `ipam`: subnets and addresses.
//! - `kernel`: networks in the kernel: links of the host, and interfaces of containers.

mod error;
mod ipam;
#[expect(dead_code, reason = "only its tests call most of it yet")]
mod kernel;
mod options;
mod types;

pub use error::NetworkError;
pub use ipam::{AddressError, AddressPool, PoolError, Pools, SubnetError};
pub use options::OptionError;
pub use types::{
    Addressing, AskedSubnet, Binding, Bridge, Driver, Endpoint, GatewayMode, IpvlanFlag,
    IpvlanMode, MacvlanMode, Network, NewNetwork, Parent, ParentLink, Subnet,
};
