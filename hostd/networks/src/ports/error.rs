//! Why a port of the host could not be reserved. The texts contain the words that clients of Docker
//! look for, and name the holder of the port.

use std::fmt;
use std::net::IpAddr;

use keelson_model::spec::{Port, PortRange};

use crate::types::Binding;

/// Why a port of the host could not be reserved. Then none of the container's ports was reserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another container has it, or the same container by another binding.
    #[error("Bind for {host}:{port} failed: port is already allocated (container {holder} has it)")]
    Allocated {
        /// The host's address.
        host: IpAddr,
        /// The host's port.
        port: u16,
        /// Name and identifier of the container.
        holder: String,
    },
    /// The kernel refuses it, mostly because a program has it.
    #[error("failed to bind host port for {place}: {reason}{}", by(.program.as_deref()))]
    Host {
        /// What was to be published where.
        place: PortPlace,
        /// What the kernel said.
        reason: String,
        /// The program that has it, if one was found.
        program: Option<String>,
    },
    /// None of the allowed ports is free at all addresses.
    #[error("failed to bind host port for {place}: all ports are allocated")]
    Exhausted {
        /// What was to be published where.
        place: PortPlace,
    },
    /// Port 0.
    #[error("invalid container port 0/{0}: give a port from 1 to 65535")]
    Zero(&'static str),
}

fn by(program: Option<&str>) -> String {
    program.map_or_else(String::new, |program| format!(" ({program} has it)"))
}

/// A binding in Docker's words: `0.0.0.0:8080:172.19.0.2:80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPlace {
    pub(super) host: IpAddr,
    pub(super) ports: PortRange,
    pub(super) container: Option<IpAddr>,
    pub(super) port: Port,
}

impl fmt::Display for PortPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |f: &mut fmt::Formatter<'_>, address| match address {
            IpAddr::V4(address) => write!(f, "{address}:"),
            IpAddr::V6(address) => write!(f, "[{address}]:"),
        };
        address(f, self.host)?;
        let PortRange { first, last } = self.ports;
        match first == last {
            true => write!(f, "{first}:")?,
            false => write!(f, "{first}-{last}:")?,
        }
        if let Some(container) = self.container {
            address(f, container)?;
        }
        write!(f, "{}/{}", self.port.number, self.port.protocol.as_str())
    }
}

/// A published port whose reservation was lost while no engine ran. The packet filter still maps it
/// to the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The binding.
    pub(crate) binding: Binding,
    /// Why it could not be reserved again.
    pub(crate) reason: PortError,
}
