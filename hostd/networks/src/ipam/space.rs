//! The addresses of a network: those of all its subnets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use keelson_model::ip::IpPrefix;

use super::addresses::{Addresses, NotFree};
use super::block::number;
use crate::types::Subnet;

/// Why a container can't get an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another container has it. The text begins with Docker's words, and then names the holder.
    #[error("Address already in use: {0}")]
    Taken(NotFree),
    /// It is in no subnet.
    #[error("no configured subnet or ip-range contain the IP address {0}")]
    Outside(IpAddr),
}

/// The addresses of a network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space(Vec<Addresses>);

impl Space {
    pub(crate) fn new(subnets: &[Subnet]) -> Self {
        Self(subnets.iter().map(Addresses::new).collect())
    }

    /// Allocates an address of a family. Returns it with the prefix length of its subnet, or `None`
    /// if none is left. Addresses in `avoided` are used only when no other is free.
    pub(crate) fn take_any(
        &mut self,
        ipv6: bool,
        holder: &str,
        avoided: &[IpAddr],
    ) -> Option<IpPrefix> {
        let avoided = avoided.iter().filter(|address| address.is_ipv6() == ipv6);
        let avoided: BTreeSet<u128> = avoided.map(|address| number(*address)).collect();
        let subnets = self.0.iter_mut();
        let mut subnets = subnets.filter(|one| one.prefix().address.is_ipv6() == ipv6);
        subnets.find_map(|subnet| {
            let address = subnet.take_any(holder, &avoided)?;
            Some(IpPrefix {
                address,
                length: subnet.prefix().length,
            })
        })
    }

    /// Allocates this address.
    ///
    /// # Errors
    /// [`AddressError`].
    pub(crate) fn take(&mut self, address: IpAddr, holder: &str) -> Result<IpPrefix, AddressError> {
        let subnet = self.subnet_of(address);
        let subnet = subnet.ok_or(AddressError::Outside(address))?;
        subnet.take(address, holder).map_err(AddressError::Taken)?;
        Ok(IpPrefix {
            address,
            length: subnet.prefix().length,
        })
    }

    /// Releases an address. It is no error if nobody has it.
    pub(crate) fn release(&mut self, address: IpAddr) {
        if let Some(subnet) = self.subnet_of(address) {
            subnet.release(address);
        }
    }

    fn subnet_of(&mut self, address: IpAddr) -> Option<&mut Addresses> {
        let mut subnets = self.0.iter_mut();
        subnets.find(|subnet| subnet.prefix().contains(address))
    }
}
