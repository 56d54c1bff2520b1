//! The errors of networks, in the words that Docker's clients match on.

use std::io;
use std::path::{Path, PathBuf};

use keelson_model::error::ErrorKind;
use keelson_store::StoreError;

use crate::firewall::FirewallError;
use crate::ipam::{AddressError, SubnetError};
use crate::kernel::KernelError;
use crate::names::NamesError;
use crate::options::OptionError;
use crate::ports::PortError;

/// An error of container networks.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no such network.
    #[error("network {0} not found")]
    NotFound(String),
    /// Another network has the name.
    #[error("network with name {0} already exists")]
    Exists(String),
    /// Several identifiers begin with the given text.
    #[error("network {term} is ambiguous ({count} matches found based on ID prefix)")]
    Ambiguous {
        /// The given text.
        term: String,
        /// How many networks match.
        count: usize,
    },
    /// The name is that of a predefined network.
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    /// A predefined network can't be removed.
    #[error("{0} is a pre-defined network and cannot be removed")]
    NotRemovable(String),
    /// Running containers are in it.
    #[error(
        "error while removing network: network {name} has active endpoints ({})", endpoints.join(", ")
    )]
    InUse {
        /// The network.
        name: String,
        /// `name:"c1" id:"0123456789ab"` for each endpoint.
        endpoints: Vec<String>,
    },
    /// The caller's input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It conflicts with another network.
    #[error(
        "cannot create network {id} ({link}): conflicts with network {other} ({other_link}): {reason}"
    )]
    Conflict {
        /// The new network.
        id: String,
        /// Its bridge.
        link: String,
        /// The existing network.
        other: String,
        /// Its bridge.
        other_link: String,
        /// What they have in common.
        reason: &'static str,
    },
    /// Its driver does not exist, or refuses an option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Its subnets can't be allocated.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// A container can't get an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A container's connection requests something that does not fit the network.
    #[error("invalid endpoint settings:\n{0}")]
    Endpoint(String),
    /// All addresses are in use.
    #[error("no available IPv{family} addresses on this network's address pools: {name} ({id})")]
    Exhausted {
        /// 4 or 6.
        family: u8,
        /// The network's name.
        name: String,
        /// The network's identifier.
        id: String,
    },
    /// The container is already in the network.
    #[error("endpoint with name {container} already exists in network {network}")]
    Connected {
        /// The container's name.
        container: String,
        /// The network's name.
        network: String,
    },
    /// The container is not in the network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container's identifier.
        container: String,
        /// The network's name, or the caller's name for it.
        network: String,
    },
    /// Another prune is running.
    #[error("a prune operation is already running")]
    Pruning,
    /// Its document can't be read.
    #[error("network {name} can't be used: {reason}")]
    Unreadable {
        /// The network.
        name: String,
        /// Why.
        reason: String,
    },
    /// A port of the host can't be reserved.
    #[error(
        "driver failed programming external connectivity on endpoint {name} ({endpoint}): {source}"
    )]
    Port {
        /// The container's name.
        name: String,
        /// The endpoint's identifier.
        endpoint: String,
        /// Why.
        source: Box<PortError>,
    },
    /// A container can't be started because of its networks.
    #[error("failed to set up container networking: {0}")]
    NotStarted(Box<NetworkError>),
    /// Links, addresses or routes could not be set up.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The packet filter could not be changed.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// The resolver did not accept a container.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// The sockets of a container's name server could not be opened.
    #[error("name server of a container: {0}")]
    NameSockets(io::Error),
    /// The document store's error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// The operation: `mkdir`, `remove`, ….
        operation: &'static str,
        /// Its object.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The work on files ended without a result, by a panic.
    #[error("a task for networks failed: {0}")]
    TaskDied(#[from] keelson_blocking::TaskDied),
}

impl NetworkError {
    pub(crate) fn io(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// The kind, from which status and exit code follow.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_)
            | Self::Option(OptionError::NoDriver(_))
            | Self::Subnet(SubnetError::NoDriver(_)) => ErrorKind::NotFound,
            Self::Exists(_) | Self::Pruning => ErrorKind::Conflict,
            Self::NotStarted(error) => error.kind(),
            Self::Predefined(_)
            | Self::NotRemovable(_)
            | Self::InUse { .. }
            | Self::Conflict { .. }
            | Self::Connected { .. }
            | Self::Option(OptionError::OnlyOne(_) | OptionError::NoSwarm)
            | Self::Subnet(SubnetError::Several | SubnetError::Overlap { .. })
            | Self::Address(AddressError::Taken(_)) => ErrorKind::Forbidden,
            Self::Ambiguous { .. }
            | Self::Invalid(_)
            | Self::Option(_)
            | Self::Subnet(_)
            | Self::Endpoint(_)
            | Self::Address(AddressError::Outside(_)) => ErrorKind::InvalidInput,
            Self::Exhausted { .. }
            | Self::NotConnected { .. }
            | Self::Unreadable { .. }
            | Self::Port { .. }
            | Self::Kernel(_)
            | Self::Firewall(_)
            | Self::Names(_)
            | Self::NameSockets(_)
            | Self::Store(_)
            | Self::Io { .. }
            | Self::TaskDied(_) => ErrorKind::Internal,
        }
    }
}
