//! The table of tracked connections. It keeps what was decided for a connection's first packet,
//! even after the rules have changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{self, Attributes, CONNTRACK, Message};
use crate::{Netfilter, NftError};

const GET: u16 = CONNTRACK | 1;
const DELETE: u16 = CONNTRACK | 2;

/// Attributes of a connection.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// What the kernel's filter compares.
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_PORT: u32 = 1 << 5;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Most connections that one call returns.
const MOST: usize = 8192;

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Where its first packet came from.
    pub source: IpAddr,
    /// Where its first packet was sent to, before a rule changed that.
    pub destination: IpAddr,
    /// The port that it was sent to.
    pub port: u16,
    /// Who answers. Differs from the destination if a rule changed that.
    pub answers: IpAddr,
    /// The port that answers.
    pub answers_port: u16,
    /// The attributes, as listed, by which the kernel finds it again.
    original: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

impl Netfilter {
    /// Lists at most 8,192 connections of one family and protocol, to one port or to any. The
    /// kernel searches the connections of all network namespaces, which takes about 10 ms for a
    /// table of the usual size.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn flows(
        &mut self,
        ipv6: bool,
        protocol: u8,
        port: Option<u16>,
    ) -> Result<Vec<Flow>, NftError> {
        let family = if ipv6 { AF_INET6 } else { AF_INET };
        let label = format!("list the connections of protocol {protocol}");
        let mut found = Vec::new();
        let fill = |writer: &mut wire::Writer| {
            writer.nested(ORIGINAL, |writer| {
                writer.nested(2, |writer| {
                    writer.attribute(1, &[protocol]);
                    if let Some(port) = port {
                        writer.attribute(3, &port.to_be_bytes());
                    }
                });
            });
            let flags = match port {
                Some(_) => FILTER_PROTOCOL | FILTER_PORT,
                None => FILTER_PROTOCOL,
            };
            writer.nested(FILTER, |writer| {
                writer.attribute(1, &flags.to_ne_bytes());
                writer.attribute(2, &0_u32.to_ne_bytes());
            });
        };
        // Connections that begin or end meanwhile do not matter. (The kernel filters one family
        // only.)
        self.request(&label, GET, wire::DUMP, family, fill, |message| {
            if let Some((number, flow)) = read(message)
                // Older kernels do not know the filter and list everything.
                && number == protocol
                && flow.source.is_ipv6() == ipv6
                && port.is_none_or(|port| flow.port == port)
                && found.len() < MOST
            {
                found.push(flow);
            }
        })?;
        Ok(found)
    }

    /// Makes the kernel forget a connection, so that its next packet counts as the first of a new
    /// one. The connection may have ended already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget(&mut self, flow: &Flow) -> Result<(), NftError> {
        let label = format!("forget the connection from {}", flow.source);
        let family = if flow.source.is_ipv6() {
            AF_INET6
        } else {
            AF_INET
        };
        let fill = |writer: &mut wire::Writer| {
            writer.nested(ORIGINAL, |writer| writer.append(&flow.original));
            writer.attribute(ID, &flow.id);
            if let Some(zone) = &flow.zone {
                writer.attribute(ZONE, zone);
            }
        };
        match self.request(&label, DELETE, 0, family, fill, |_| {}) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Reads a connection and its protocol.
fn read(message: &Message<'_>) -> Option<(u8, Flow)> {
    let attributes = message.attributes();
    let original = attributes.find(ORIGINAL)?;
    let (protocol, source, destination, _, port) = tuple(Attributes(original))?;
    let (_, answers, _, answers_port, _) = tuple(attributes.nested(REPLY)?)?;
    let flow = Flow {
        source,
        destination,
        port,
        answers,
        answers_port,
        original: original.to_vec(),
        id: attributes.find(ID)?.to_vec(),
        zone: attributes.find(ZONE).map(<[u8]>::to_vec),
    };
    Some((protocol, flow))
}

/// Returns the protocol, the source, the destination, and the ports of both.
fn tuple(tuple: Attributes<'_>) -> Option<(u8, IpAddr, IpAddr, u16, u16)> {
    let addresses = tuple.nested(1)?;
    let protocol = tuple.nested(2)?;
    let address = |ipv4, ipv6| match addresses.find(ipv4) {
        Some(bytes) => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        None => {
            let bytes = addresses.find(ipv6)?;
            Some(IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?)))
        }
    };
    let port = |kind| {
        let bytes = protocol.find(kind)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*bytes))
    };
    Some((
        *protocol.find(1)?.first()?,
        address(1, 3)?,
        address(2, 4)?,
        port(2)?,
        port(3)?,
    ))
}
