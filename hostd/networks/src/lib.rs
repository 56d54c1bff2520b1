//! Container networks.
//!
//! - `types`: what networks are, and the connections of running containers to them.
//! - `kernel`: networks in the kernel: links of the host, and interfaces of containers.

#[expect(dead_code, reason = "only its tests call most of it yet")]
mod kernel;
mod types;

pub use types::{
    Addressing, AskedSubnet, Binding, Bridge, Driver, Endpoint, GatewayMode, IpvlanFlag,
    IpvlanMode, MacvlanMode, Network, NewNetwork, Parent, ParentLink, Subnet,
};
