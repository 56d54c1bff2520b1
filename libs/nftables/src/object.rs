//! Tables, chains and sets.

use std::fmt;

use crate::value::Kind;

/// The packets that a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The kernel's number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Inet),
            2 => Some(Self::Ipv4),
            10 => Some(Self::Ipv6),
            _ => None,
        }
    }

    /// nft's word: `inet`, `ip` or `ip6`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }
}

/// The name of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// What it sees. Tables of different families may share a name.
    pub family: Family,
    /// Its name.
    pub name: &'static str,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {} {}", self.family.as_str(), self.name)
    }
}

/// Where a base chain meets packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the hook of the same name in nft(8)")]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Change addresses. Such a chain sees only the first packet of each connection.
    Nat,
}

impl ChainKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// What happens to a packet that no rule of a base chain decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the policy of the same name")]
pub enum Policy {
    Drop,
    Accept,
}

/// A chain of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in its table.
    pub name: &'static str,
    /// Its hook and its priority; smaller numbers come first. `None`: other chains jump to it.
    pub base: Option<(ChainKind, Hook, i32)>,
}

impl Chain {
    /// A base chain. A packet that no rule decides is accepted.
    #[must_use]
    pub const fn base(name: &'static str, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        Self {
            name,
            base: Some((kind, hook, priority)),
        }
    }

    /// A chain that others jump to.
    #[must_use]
    pub const fn regular(name: &'static str) -> Self {
        Self { name, base: None }
    }
}

/// What a map holds for each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// What to do.
    Verdict,
    /// Values.
    Values(&'static [Kind]),
}

/// A set, or a map if it has data. The time of a look-up does not depend on the number of elements:
/// keys are single values, so the kernel uses a hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in its table.
    pub name: &'static str,
    /// What keys are made of.
    pub key: &'static [Kind],
    /// What a map holds for each key; `None` for a set.
    pub data: Option<Data>,
}
