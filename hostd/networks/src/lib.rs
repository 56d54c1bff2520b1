//! Container networks.
//!
//! - `types`: what networks are, and the connections of running containers to them.
//! - `error`: what can go wrong, in Docker's words.
//! - `options`: from a driver's options to what it does.
//! - `ipam`: subnets and addresses.
//! - `settings`: with what networks are opened.
//! - `store`: networks on disk and in memory, and who is in them.
//! - `kernel`: networks in the kernel: links of the host, and interfaces of containers.
//! - `firewall`: networks in the packet filter. `ports`: ports of the host that are published.
//! - `names`: names of containers, and the resolver that serves them.
//! - `networks`: the calls that the engine and its clients use.

mod error;
mod firewall;
mod ipam;
mod kernel;
pub mod names;
mod networks;
mod options;
mod ports;
mod settings;
mod store;
mod types;

pub use error::NetworkError;
pub use firewall::FirewallError;
pub use ipam::{AddressError, AddressPool, PoolError, Pools, SubnetError};
pub use kernel::KernelError;
pub use names::NamesError;
pub use networks::{Created, Member, Networks, Run};
pub use options::OptionError;
pub use ports::PortError;
pub use settings::{DefaultBridge, NetworkOptions, ResolverOptions};
pub use types::{
    Addressing, AskedSubnet, Binding, Bridge, Driver, Endpoint, GatewayMode, IpvlanFlag,
    IpvlanMode, MacvlanMode, Network, NetworkEvent, NetworkMember, NewNetwork, Parent, ParentLink,
    Recovered, Subnet,
};
