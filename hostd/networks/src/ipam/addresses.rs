//! The addresses of one subnet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use keelson_model::ip::IpPrefix;

use super::block::{Block, address, number};
use super::check::{unusable, usable};
use crate::types::Subnet;

/// Why an address can't be given away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFree {
    /// No interface can have it.
    #[error("{address}: {why}")]
    Unusable {
        /// The address.
        address: IpAddr,
        /// What it is.
        why: &'static str,
    },
    /// The network itself needs it.
    #[error("{address} is {use_of}")]
    Fixed {
        /// The address.
        address: IpAddr,
        /// What for.
        use_of: String,
    },
    /// A container has it.
    #[error("{address} is the address of container {container}")]
    Container {
        /// The address.
        address: IpAddr,
        /// The container's name.
        container: String,
    },
}

/// The addresses of one subnet: only those that somebody has are kept.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    prefix: IpPrefix,
    /// The range of automatic addresses.
    range: Block,
    /// Never allocated: the gateway's and auxiliary ones, with their purpose.
    fixed: BTreeMap<u128, String>,
    /// Allocated addresses, with their holders.
    used: BTreeMap<u128, String>,
    /// The last automatic address.
    last: Option<u128>,
}

impl Addresses {
    pub(super) fn new(subnet: &Subnet) -> Self {
        let mut range = usable(subnet.prefix);
        if let Some(asked) = subnet.range.map(Block::of) {
            range.first = range.first.max(asked.first);
            range.last = range.last.min(asked.last);
        }
        let auxiliary = subnet.auxiliary.iter();
        let mut fixed: BTreeMap<u128, String> = auxiliary
            .map(|(name, address)| {
                let use_of = format!("reserved for {name:?} (auxiliary address)");
                (number(*address), use_of)
            })
            .collect();
        if let Some(gateway) = subnet.gateway {
            fixed.insert(number(gateway), "the gateway's".to_owned());
        }
        Self {
            prefix: subnet.prefix,
            range,
            fixed,
            used: BTreeMap::new(),
            last: None,
        }
    }

    pub(super) const fn prefix(&self) -> IpPrefix {
        self.prefix
    }

    /// Allocates an address of the range: the next free one after the last. So a freed address does
    /// not go to another container at once, while neighbours and clients still remember it.
    /// Addresses in `avoided` are used only when no other is free.
    pub(super) fn take_any(&mut self, holder: &str, avoided: &BTreeSet<u128>) -> Option<IpAddr> {
        let nothing = BTreeSet::new();
        let found = self.find(avoided).or_else(|| match avoided.is_empty() {
            true => None,
            false => self.find(&nothing),
        })?;
        self.last = Some(found);
        self.used.insert(found, holder.to_owned());
        Some(address(self.range.ipv6, found))
    }

    fn find(&self, avoided: &BTreeSet<u128>) -> Option<u128> {
        let Block { first, last, .. } = self.range;
        let after = self.last.and_then(|last| last.checked_add(1));
        let start = after.map_or(first, |after| after.max(first));
        self.search(start, last, avoided)
            .or_else(|| self.search(first, start.checked_sub(1)?.min(last), avoided))
    }

    /// The first free address between two. The search takes at most one step more than there are
    /// taken and avoided addresses.
    fn search(&self, first: u128, last: u128, avoided: &BTreeSet<u128>) -> Option<u128> {
        let mut number = first;
        while number <= last {
            let taken = self.used.contains_key(&number)
                || self.fixed.contains_key(&number)
                || avoided.contains(&number);
            if !taken {
                return Some(number);
            }
            number = number.checked_add(1)?;
        }
        None
    }

    /// Gives away one address of the subnet.
    ///
    /// # Errors
    /// Whose it is.
    pub(super) fn take(&mut self, address: IpAddr, holder: &str) -> Result<(), NotFree> {
        if let Some(why) = unusable(self.prefix, address) {
            return Err(NotFree::Unusable { address, why });
        }
        let number = number(address);
        if let Some(use_of) = self.fixed.get(&number) {
            return Err(NotFree::Fixed {
                address,
                use_of: use_of.clone(),
            });
        }
        if let Some(other) = self.used.get(&number) {
            return Err(NotFree::Container {
                address,
                container: other.clone(),
            });
        }
        self.used.insert(number, holder.to_owned());
        Ok(())
    }

    /// Releases an address.
    pub(super) fn release(&mut self, address: IpAddr) {
        self.used.remove(&number(address));
    }
}
