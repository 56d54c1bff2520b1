//! Values and their form in the kernel's messages.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::Writer;

/// Length of a link's name in the kernel, with its NUL.
const NAME: usize = 16;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A protocol above IP: 6 is TCP.
    Protocol,
    /// A port.
    Port,
    /// The name of a link.
    Name,
}

impl Kind {
    /// nft's number of the type; nft needs it to print values.
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Name => 41,
        }
    }

    /// Length in bytes.
    const fn length(self) -> usize {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 | Self::Name => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// Type and length of several values side by side, as in a key.
    pub(crate) fn joined(kinds: &[Self]) -> (u32, u32) {
        let number = kinds
            .iter()
            .fold(0_u32, |all, kind| (all << 6) | kind.number());
        let length: usize = match kinds {
            [kind] => kind.length(),
            // Each begins at a new register of four bytes.
            several => several
                .iter()
                .map(|kind| kind.length().next_multiple_of(4))
                .sum(),
        };
        (number, u32::try_from(length).unwrap_or(u32::MAX))
    }
}

/// A part of a key or of a map's data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An IPv4 address.
    Ipv4(Ipv4Addr),
    /// An IPv6 address.
    Ipv6(Ipv6Addr),
    /// A protocol above IP: 6 is TCP.
    Protocol(u8),
    /// A port.
    Port(u16),
    /// The name of a link; what exceeds 15 bytes is cut off.
    Name(String),
}

impl Value {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Ipv4(address) => bytes.extend_from_slice(&address.octets()),
            Self::Ipv6(address) => bytes.extend_from_slice(&address.octets()),
            Self::Protocol(number) => bytes.push(*number),
            Self::Port(number) => bytes.extend_from_slice(&number.to_be_bytes()),
            Self::Name(name) => bytes.extend_from_slice(&name_bytes(name)),
        }
    }

    fn read(kind: Kind, bytes: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::Ipv4 => Self::Ipv4(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
            Kind::Ipv6 => Self::Ipv6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)),
            Kind::Protocol => Self::Protocol(*bytes.first()?),
            Kind::Port => Self::Port(u16::from_be_bytes(*bytes.first_chunk::<2>()?)),
            Kind::Name => {
                let name = bytes.first_chunk::<NAME>()?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
                Self::Name(String::from_utf8_lossy(name.get(..end)?).into_owned())
            }
        })
    }
}

/// The name of a link as the kernel compares it: padded with NULs.
pub(crate) fn name_bytes(name: &str) -> [u8; NAME] {
    let mut padded = [0; NAME];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(NAME - 1)) {
        *to = from;
    }
    padded
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => address.fmt(f),
            Self::Ipv6(address) => address.fmt(f),
            Self::Protocol(number) => number.fmt(f),
            Self::Port(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Accept it; the next base chain sees it.
    Accept,
    /// Drop it.
    Drop,
    /// Return to the chain that jumped here.
    Return,
    /// Jump to another chain, then continue with this one.
    Jump(&'static str),
    /// Go to another chain and do not come back.
    Goto(&'static str),
}

impl Verdict {
    const fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    /// Writes the verdict's attribute inside of a data attribute.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.nested(2, |writer| {
            writer.attribute(1, &self.code().to_be_bytes());
            if let Self::Jump(chain) | Self::Goto(chain) = self {
                writer.text(2, chain);
            }
        });
    }
}

/// Concatenates values. If there are several, each begins at a new register of four bytes.
pub(crate) fn join(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    for value in values {
        value.write(&mut bytes);
        if values.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

pub(crate) fn split(kinds: &[Kind], mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::with_capacity(kinds.len());
    for kind in kinds {
        values.push(Value::read(*kind, bytes)?);
        let next = kind.length().next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Some(values)
}
