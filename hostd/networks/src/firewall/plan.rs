//! The elements of a network and of an endpoint.

use std::net::{IpAddr, Ipv6Addr};

use keelson_model::spec::{Port, Protocol};
use keelson_nftables::{Datum, Value, Verdict};

use super::part::{Elements, Part};
use super::table::{SEPARATE, TO_NAT, TO_OPEN, TO_ROUTED};
use crate::types::{Binding, Bridge, Endpoint, GatewayMode, Network};

/// The elements that a network adds to the packet filter; none, unless it is a bridge. With them
/// only the host can reach its containers. So they must be added before the first container's link
/// is up.
#[must_use]
pub(crate) fn elements_of_network(network: &Network) -> Elements {
    let mut elements = Elements::default();
    let Some(bridge) = network.bridge() else {
        return elements;
    };
    let link = || Value::Name(bridge.link.clone());
    let to = |chain| Some(Datum::Verdict(Verdict::Goto(chain)));
    let drop = Some(Datum::Verdict(Verdict::Drop));
    elements.put(Part::Bridges, [link()], None);
    elements.put(Part::Same, [link(), link()], None);
    let within = match bridge.inter_container {
        true => Some(Datum::Verdict(Verdict::Accept)),
        false => to(SEPARATE),
    };
    elements.put(Part::Within, [link(), link()], within);
    if network.internal {
        elements.put(Part::From, [link()], drop.clone());
    }
    for ipv6 in [false, true] {
        let mode = bridge.mode(ipv6);
        let has_family = if ipv6 { network.ipv6 } else { network.ipv4 };
        let verdict = match mode {
            _ if network.internal || !has_family => drop.clone(),
            GatewayMode::Nat => to(TO_NAT),
            GatewayMode::NatUnprotected => to(TO_OPEN),
            GatewayMode::Routed => to(TO_ROUTED),
            GatewayMode::Isolated => drop.clone(),
        };
        elements.put(either(ipv6, Part::To4, Part::To6), [link()], verdict);
        if mode == GatewayMode::Isolated {
            let part = either(ipv6, Part::Isolated4, Part::Isolated6);
            elements.put(part, [link()], None);
        }
        let translated = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
        if translated && has_family && bridge.masquerade && !network.internal {
            leaving(&mut elements, bridge, ipv6);
        }
    }
    for trusted in &bridge.trusted {
        let key = [Value::Name(trusted.clone()), link()];
        elements.put(Part::Trusted, key, None);
    }
    elements
}

/// Elements that set the source address of packets that leave a network.
fn leaving(elements: &mut Elements, bridge: &Bridge, ipv6: bool) {
    let link = [Value::Name(bridge.link.clone())];
    let source = match ipv6 {
        false => bridge.source_ipv4.map(Value::Ipv4),
        true => bridge.source_ipv6.map(Value::Ipv6),
    };
    match source {
        Some(source) => {
            let part = either(ipv6, Part::Source4, Part::Source6);
            elements.put(part, link, Some(Datum::Values(vec![source])));
        }
        None => {
            let part = either(ipv6, Part::Masquerade4, Part::Masquerade6);
            elements.put(part, link, None);
        }
    }
}

/// What an endpoint adds to the packet filter: the published ports of its container, nothing without
/// any. `bindings` are all of the container's: those of a family are published by the endpoint that
/// has the default route of the family, and routed networks open the ports of all. `direct_routing`:
/// published ports are reached at the container's own address, too.
#[must_use]
pub(crate) fn elements_of_endpoint(
    network: &Network,
    endpoint: &Endpoint,
    bindings: &[Binding],
    direct_routing: bool,
) -> Elements {
    let mut elements = Elements::default();
    let Some(bridge) = network.bridge().filter(|_| !network.internal) else {
        return elements;
    };
    for (ipv6, own, gateway) in [
        (false, &endpoint.ipv4, endpoint.default_ipv4),
        (true, &endpoint.ipv6, endpoint.default_ipv6),
    ] {
        let Some(own) = own else { continue };
        let direct = match bridge.mode(ipv6) {
            GatewayMode::Nat | GatewayMode::NatUnprotected => {
                let of_family = bindings.iter().filter(|binding| {
                    gateway && binding.host_port != 0 && binding.host.is_ipv6() == ipv6
                });
                for binding in of_family.clone() {
                    publish(&mut elements, own.address, binding);
                }
                match direct_routing || !bridge.trusted.is_empty() {
                    true => of_family.map(|binding| binding.port).collect(),
                    false => Vec::new(),
                }
            }
            GatewayMode::Routed => bindings.iter().map(|binding| binding.port).collect(),
            GatewayMode::Isolated => Vec::new(),
        };
        for port in direct {
            let part = either(ipv6, Part::Open4, Part::Open6);
            let [protocol, port] = service(port);
            elements.put(part, [address(own.address), protocol, port], None);
        }
    }
    elements
}

/// Maps a port of the host to one of a container.
fn publish(elements: &mut Elements, container: IpAddr, binding: &Binding) {
    let ipv6 = container.is_ipv6();
    let twice = [address(container), address(container)];
    elements.put(either(ipv6, Part::Self4, Part::Self6), twice, None);
    let place = vec![address(container), Value::Port(binding.port.number)];
    let place = Some(Datum::Values(place));
    let [protocol, port] = service(Port {
        number: binding.host_port,
        protocol: binding.port.protocol,
    });
    // See `table::input`.
    let not_served = |host: &Ipv6Addr| host.is_loopback() || host.is_unicast_link_local();
    let served = match binding.host {
        IpAddr::V6(host) if host.is_unspecified() || not_served(&host) => {
            let key = [protocol.clone(), port.clone()];
            elements.put(Part::Refused6, key, None);
            !not_served(&host)
        }
        _ => true,
    };
    if binding.host.is_unspecified() {
        let part = either(ipv6, Part::Any4, Part::Any6);
        elements.put(part, [protocol, port], place);
    } else if served {
        let part = either(ipv6, Part::Ports4, Part::Ports6);
        elements.put(part, [address(binding.host), protocol, port], place);
    }
}

const fn either(ipv6: bool, of_ipv4: Part, of_ipv6: Part) -> Part {
    if ipv6 { of_ipv6 } else { of_ipv4 }
}

const fn address(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Ipv4(address),
        IpAddr::V6(address) => Value::Ipv6(address),
    }
}

const fn service(port: Port) -> [Value; 2] {
    let number = match port.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => super::flows::UDP,
        Protocol::Sctp => 132,
    };
    [Value::Protocol(number), Value::Port(port.number)]
}
