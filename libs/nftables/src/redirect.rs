//! Redirects a container's DNS queries to the resolver. The resolver's sockets are bound to other
//! ports of 127.0.0.11, so port 53 stays free for a name server in the container.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{
    Batch, Chain, ChainKind, Family, Field, Hook, Netfilter, NftError, Rule, Table, Value,
};

/// The address to which containers send queries.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The table in the container's network namespace.
pub const TABLE: Table = Table {
    family: Family::Ipv4,
    name: "keelson-dns",
};

const PORT: u16 = 53;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// Before the usual priority of such chains: a program in the container that redirects ports itself
/// must not catch these queries.
const PRIORITY: i32 = -110;

/// Redirects queries to port 53 of 127.0.0.11 to the given ports of that address. The socket must
/// have been opened in the container's network namespace. The call may be repeated with other
/// ports: it replaces the table in one transaction.
///
/// # Errors
/// The kernel refuses; then nothing was changed.
pub fn install(netfilter: &mut Netfilter, udp: u16, tcp: u16) -> Result<(), NftError> {
    // As a rule there is no table yet. Nothing may be deleted then: the kernel would wait for an RCU
    // grace period when the socket is closed, and the start of a container with it.
    match netfilter.commit(&batch(udp, tcp, Before::Nothing)) {
        Err(error) if error.is_other() => netfilter.commit(&batch(udp, tcp, Before::Anything)),
        other => other,
    }
}

/// What there may be before.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    Anything,
}

fn batch(udp: u16, tcp: u16, before: Before) -> Batch {
    const CHAIN: &str = "output";
    let mut batch = Batch::new();
    match before {
        Before::Nothing => batch.create_table(TABLE),
        Before::Anything => {
            batch.add_table(TABLE);
            batch.delete_table(TABLE);
            batch.add_table(TABLE);
        }
    }
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
