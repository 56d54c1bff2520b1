//! Connections that were begun by other rules. NAT decides for the first packet of a connection, and the
//! kernel remembers it. What a client sends again and again by UDP from one port is one connection for as
//! long as it sends: it would never meet a port that was published later, and would be sent to a
//! container that is gone.

use std::net::{IpAddr, UdpSocket};

use keelson_nftables::{Datum, Flow, Netfilter, NftError, Value};

use super::part::{Elements, Part};

/// The protocol's number.
pub(super) const UDP: u8 = 17;

/// Up to this number of ports the kernel is asked for each; beyond, once for all.
const SINGLY: usize = 8;
/// How often the kernel is asked when there are more connections than it lists at once.
const PASSES: u32 = 32;

/// A port of the host whose meaning changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Changed<'a> {
    /// `None`: at any address of the host.
    host: Option<IpAddr>,
    port: u16,
    part: Part,
    key: &'a [Value],
}

/// Forgets connections of UDP to the ports among `changed` that lead elsewhere than the elements say. What
/// fails is logged: such connections end by themselves when they are silent for some time.
pub(super) fn forget_stale(
    netfilter: &mut Netfilter,
    elements: &Elements,
    changed: &[(Part, &[Value])],
) {
    let changed: Vec<_> = changed
        .iter()
        .filter_map(|(part, key)| udp(*part, key))
        .collect();
    for ipv6 in [false, true] {
        let of_family =
            |changed: &&Changed<'_>| matches!(changed.part, Part::Ports6 | Part::Any6) == ipv6;
        let ports: Vec<_> = changed.iter().filter(of_family).copied().collect();
        let asked: Vec<Option<u16>> = match ports.len() {
            0 => continue,
            1..=SINGLY => ports.iter().map(|changed| Some(changed.port)).collect(),
            _ => vec![None],
        };
        for port in asked {
            if let Err(error) = forget(netfilter, elements, &ports, ipv6, port) {
                tracing::warn!(%error, "can't forget connections of UDP to published ports");
            }
        }
    }
}

fn forget(
    netfilter: &mut Netfilter,
    elements: &Elements,
    ports: &[Changed<'_>],
    ipv6: bool,
    port: Option<u16>,
) -> Result<(), NftError> {
    for _ in 0..PASSES {
        let mut stale = netfilter.flows(ipv6, UDP, port)?;
        stale.retain(|flow| {
            ports
                .iter()
                .any(|changed| is_stale(flow, changed, elements))
        });
        if stale.is_empty() {
            break;
        }
        for flow in &stale {
            netfilter.forget(flow)?;
        }
    }
    Ok(())
}

fn is_stale(flow: &Flow, changed: &Changed<'_>, elements: &Elements) -> bool {
    if flow.port != changed.port {
        return false;
    }
    let addressed = match changed.host {
        Some(host) => host == flow.destination,
        None => is_local(flow.destination),
    };
    let expected = elements.get(changed.part, changed.key);
    addressed
        && match expected.and_then(Option::as_ref).and_then(place) {
            Some(expected) => (flow.answers, flow.answers_port) != expected,
            // Nobody has the port: only what leads to a container is wrong.
            None => flow.answers != flow.destination,
        }
}

fn place(datum: &Datum) -> Option<(IpAddr, u16)> {
    match datum {
        Datum::Values(values) => match values.as_slice() {
            [Value::Ipv4(address), Value::Port(port)] => Some((IpAddr::V4(*address), *port)),
            [Value::Ipv6(address), Value::Port(port)] => Some((IpAddr::V6(*address), *port)),
            _ => None,
        },
        Datum::Verdict(_) => None,
    }
}

fn udp(part: Part, key: &[Value]) -> Option<Changed<'_>> {
    let (host, port) = match (part, key) {
        (Part::Ports4, [Value::Ipv4(host), Value::Protocol(UDP), Value::Port(port)]) => {
            (Some(IpAddr::V4(*host)), *port)
        }
        (Part::Ports6, [Value::Ipv6(host), Value::Protocol(UDP), Value::Port(port)]) => {
            (Some(IpAddr::V6(*host)), *port)
        }
        (Part::Any4 | Part::Any6, [Value::Protocol(UDP), Value::Port(port)]) => (None, *port),
        _ => return None,
    };
    Some(Changed {
        host,
        port,
        part,
        key,
    })
}

/// Whether this machine has the address: a connection that it forwards to a port of the same number
/// elsewhere has nothing to do with ours.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
