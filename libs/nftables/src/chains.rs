//! The base chains of all tables, including those made by other programs.

use crate::object::{Family, Policy};
use crate::wire::{self, NFTABLES};
use crate::{Netfilter, NftError};

const GET_CHAIN: u16 = NFTABLES | 4;
/// Most chains that are read from one machine.
const MOST: usize = 10_000;

/// A base chain, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// The packets that its table sees. Tables of other families (`bridge`, `arp`, `netdev`) are left
    /// out.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The kernel's number of its hook: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub hook: u32,
    /// Smaller numbers come first.
    pub priority: i32,
    /// What happens to a packet that no rule of the chain decides.
    pub policy: Policy,
}

impl Netfilter {
    /// The base chains of all tables.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn base_chains(&mut self) -> Result<Vec<BaseChain>, NftError> {
        let label = "list the chains of all tables";
        self.list(label, |netfilter, found| {
            let each = |message: &wire::Message<'_>| {
                if let Some(chain) = read(message)
                    && found.len() < MOST
                {
                    found.push(chain);
                }
            };
            netfilter.request(label, GET_CHAIN, wire::DUMP, 0, |_| {}, each)
        })
    }
}

fn read(message: &wire::Message<'_>) -> Option<BaseChain> {
    let attributes = message.attributes();
    let hook = attributes.nested(4)?;
    Some(BaseChain {
        family: Family::from_number(message.family())?,
        table: attributes.text(1)?.to_owned(),
        name: attributes.text(3)?.to_owned(),
        hook: hook.number(1)?,
        priority: hook.number(2)?.cast_signed(),
        policy: match attributes.number(5) {
            Some(0) => Policy::Drop,
            _ => Policy::Accept,
        },
    })
}
