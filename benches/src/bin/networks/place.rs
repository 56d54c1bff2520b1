//! Network namespaces that stand for machines, and the wires between them.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use keelson_netlink::{
    Batches, IpPrefix, LinkChange, LinkId, Namespace, NewAddress, Request, Route, RouteProtocol,
    TABLE_MAIN, VirtualKind, VirtualLink,
};
use keelson_sys::sandbox;

/// The machine's own address on its wire.
pub(crate) const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The neighbour's address on the wire.
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A machine without any other link than a wire, and a neighbour at the wire's other end that sends
/// everything to the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The machine.
    pub(crate) namespace: Namespace,
    /// The neighbour.
    pub(crate) outside: Namespace,
}

impl Machine {
    /// Makes both.
    pub(crate) fn new() -> Result<Self> {
        let (namespace, outside) = (Namespace::create()?, Namespace::create()?);
        for one in [&namespace, &outside] {
            one.run(|| sandbox::loopback_up().map(drop))??;
        }
        let wire = pair("outer", "wire", None);
        namespace.run(|| -> Result<()> {
            let mut batches = Batches::open()?;
            batches.run(&[wire], Some(outside.as_fd()))?;
            configure(&mut batches, "outer", MACHINE, None)
        })??;
        outside.run(|| configure(&mut Batches::open()?, "wire", NEIGHBOUR, Some(MACHINE)))??;
        Ok(Self { namespace, outside })
    }
}

/// A virtual cable whose end `inside` is in the batch's other namespace.
pub(crate) fn pair(name: &str, inside: &str, bridge: Option<u32>) -> Request {
    let kind = VirtualKind::Veth {
        peer: inside.to_owned(),
        peer_mac: None,
        peer_mtu: None,
    };
    Request::CreateLink(VirtualLink {
        controller: bridge,
        ..VirtualLink::new(name, kind)
    })
}

/// Gives a link an address with a prefix of 24 bits, switches it on, and adds a default route.
pub(crate) fn configure(
    batches: &mut Batches,
    name: &str,
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
) -> Result<()> {
    let link = index(batches, name)?;
    let mut requests = vec![
        Request::AddAddress(NewAddress {
            link,
            prefix: format!("{address}/24").parse()?,
            protocol: 0,
            link_local: false,
        }),
        Request::ChangeLink(LinkId::Index(link), LinkChange::up()),
    ];
    if let Some(gateway) = gateway {
        requests.push(Request::SetRoute(Route {
            table: TABLE_MAIN,
            link,
            destination: IpPrefix {
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                length: 0,
            },
            gateway: Some(IpAddr::V4(gateway)),
            metric: 0,
            source: None,
            protocol: RouteProtocol::Boot,
        }));
    }
    Ok(batches.run(&requests, None)?)
}

/// The index of a link.
pub(crate) fn index(batches: &mut Batches, name: &str) -> Result<u32> {
    let link = batches.find_link(name)?;
    Ok(link.with_context(|| format!("no link {name}"))?.index)
}
