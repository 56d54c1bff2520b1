//! Container networks.
//!
//! - `types`: what networks are, and the connections of running containers to them.
//! - `error`: what can go wrong, in Docker's words.
//! - `options`: from a driver's options to what it does.
//! - `ipam`: subnets and addresses.
//! - `settings`: with what networks are opened.
//! - `store`: networks on disk and in memory, and who is in them.
//! - `kernel`: networks in the kernel: links of the host, and interfaces of containers.
//! - `ports`: ports of the host that are published.
//! - `firewall`: the packet filter.
//! - [`names`]: names of containers, and the files that they find names by.
//! - `networks`: the calls that the engine and its clients use.

mod error;
mod firewall;
mod ipam;
#[expect(dead_code, reason = "only its tests call most of it yet")]
mod kernel;
mod networks;
mod options;
mod ports;
mod settings;
mod store;
mod types;

pub mod names;

pub use error::NetworkError;
pub use firewall::{
    Elements, Firewall, FirewallError, Forwarding, elements_of_endpoint, elements_of_network,
};
pub use ipam::{AddressError, AddressPool, PoolError, Pools, SubnetError};
pub use networks::{Created, Networks};
pub use options::OptionError;
pub use ports::{Facts, Holder, Lost, PortError, Ports, Side};
pub use settings::{DefaultBridge, NetworkOptions};
pub use types::{
    Addressing, AskedSubnet, Binding, Bridge, Driver, Endpoint, GatewayMode, IpvlanFlag,
    IpvlanMode, MacvlanMode, Network, NetworkEvent, NetworkMember, NewNetwork, Parent, ParentLink,
    Recovered, Subnet,
};
