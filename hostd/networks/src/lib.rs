//! Container networks.
//!
//! - `types`: what networks are, and the connections of running containers to them.
//! - `error`: the errors, in Docker's words.
//! - `options`: parses the options of drivers.
//! - `ipam`: subnets and addresses.
//! - `settings`: the settings with which networks are opened.
//! - `store`: networks on disk and in memory, and the containers in them.
//! - `kernel`: creates links of the host and interfaces of containers.
//! - `firewall`: the packet filter. `ports`: reserves published ports of the host.
//! - `names`: names of containers, and the resolver that serves them.
//! - `networks`: puts these together: the calls of the engine and its clients.

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
pub use ipam::{AddressError, AddressPool, NotFree, PoolError, Pools, SubnetError};
pub use kernel::KernelError;
pub use names::NamesError;
pub use networks::{CreatedNetwork, Member, Networks, Run};
pub use options::{OptionError, WrongValue};
pub use ports::PortError;
pub use settings::{DefaultBridge, FilterOptions, NetworkOptions, ResolverOptions};
pub use types::{
    Addressing, AskedSubnet, Binding, Bridge, Driver, Endpoint, GatewayMode, IpvlanFlag,
    IpvlanMode, MacvlanMode, Network, NetworkAction, NetworkEvent, NetworkMember, NewNetwork,
    Parent, ParentLink, Recovered, Subnet,
};
