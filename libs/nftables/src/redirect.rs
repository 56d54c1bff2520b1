//! What a container's DNS needs: queries to 127.0.0.11 reach the sockets of the resolver, which are
//! bound to other ports, so that port 53 is free for a name server in the container.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{
    Batch, Chain, ChainKind, Family, Field, Hook, Netfilter, NftError, Rule, Table, Value,
};

/// The address that containers ask.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The table in the container's network namespace.
pub const TABLE: Table = Table {
    family: Family::Ipv4,
    name: "keelson-dns",
};

const PORT: u16 = 53;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Before the usual place for such changes: what a program in the container redirects there, with
/// published ports of its own, must not catch its queries.
const PRIORITY: i32 = -110;

/// Makes queries to 127.0.0.11, port 53, reach the given ports of that address. The socket must have
/// been opened in the container's network namespace. It can be repeated, also with other ports: the
/// table is replaced in one transaction.
///
/// # Errors
/// The kernel refuses; then nothing was changed.
pub fn install(netfilter: &mut Netfilter, udp: u16, tcp: u16) -> Result<(), NftError> {
    netfilter.commit(&batch(udp, tcp))
}

fn batch(udp: u16, tcp: u16) -> Batch {
    const CHAIN: &str = "output";
    let mut batch = Batch::new();
    batch.add_table(TABLE);
    batch.delete_table(TABLE);
    batch.add_table(TABLE);
    let chain = Chain::base(CHAIN, ChainKind::Nat, Hook::Output, PRIORITY);
    batch.add_chain(TABLE, &chain);
    for (protocol, port) in [(UDP, udp), (TCP, tcp)] {
        let rule = Rule::new(CHAIN)
            .within(Field::DestinationIpv4, &Value::Ipv4(ADDRESS), 32)
            .protocol(protocol)
            .within(Field::DestinationPort, &Value::Port(PORT), 16)
            .destination(SocketAddr::from((ADDRESS, port)));
        batch.add_rule(TABLE, &rule);
    }
    batch
}
