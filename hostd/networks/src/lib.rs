//! Container networks.
//!
//! - `types`: what networks are, and the connections of running containers to them.

mod types;

pub use types::{
    Addressing, AskedSubnet, Binding, Bridge, Driver, Endpoint, GatewayMode, IpvlanFlag,
    IpvlanMode, MacvlanMode, Network, NewNetwork, Parent, ParentLink, Subnet,
};
