//! Requests as plain values, so that plans made of them can be tested without a kernel.

use std::fmt;

use keelson_model::ip::IpPrefix;

use crate::{Mac, Route};

/// One change of the network configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Creates a virtual link.
    CreateLink(VirtualLink),
    /// Changes a link, all at once. The flags of a port are set before it is switched on.
    ChangeLink(LinkId, LinkChange),
    /// Removes a virtual link.
    RemoveLink(LinkId),
    /// Adds an address without duplicate address detection (RFC 4862, 5.4), so that it can be used
    /// at once. An existing address stays.
    AddAddress(NewAddress),
    /// Removes an address.
    RemoveAddress {
        /// Index of the link.
        link: u32,
        /// The address.
        prefix: IpPrefix,
    },
    /// Adds a route, or replaces the one of the same destination, metric and table.
    SetRoute(Route),
    /// Removes a route.
    RemoveRoute(Route),
}

/// Which link is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkId {
    /// By its name at the moment of the request.
    Name(String),
    /// By its index, which stays when the link is renamed.
    Index(u32),
}

/// A virtual link to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualLink {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its kind.
    pub kind: VirtualKind,
    /// Hardware address; `None`: the kernel chooses one.
    pub mac: Option<Mac>,
    /// Maximum transmission unit in bytes; `None`: the kind's default.
    pub mtu: Option<u32>,
    /// Index of the bridge that it becomes a port of.
    pub controller: Option<u32>,
    /// Whether it is created in the batch's other namespace.
    pub elsewhere: bool,
}

impl VirtualLink {
    /// A link with the kernel's defaults.
    pub fn new(name: impl Into<String>, kind: VirtualKind) -> Self {
        Self {
            name: name.into(),
            kind,
            mac: None,
            mtu: None,
            controller: None,
            elsewhere: false,
        }
    }
}

/// Kinds of virtual links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VirtualKind {
    /// A link that drops everything.
    Dummy,
    /// A switch without spanning tree: its ports forward as soon as they have a carrier.
    Bridge,
    /// A pair of links: what is sent into one end comes out of the other. The peer is created in
    /// the batch's other namespace, if there is one.
    Veth {
        /// Name of the other end.
        peer: String,
        /// Hardware address of the other end.
        peer_mac: Option<Mac>,
        /// Maximum transmission unit of the other end in bytes.
        peer_mtu: Option<u32>,
    },
    /// One VLAN of another link (IEEE 802.1Q).
    Vlan {
        /// Index of the other link.
        parent: u32,
        /// Number of the VLAN, 1 to 4094.
        id: u16,
    },
    /// A macvlan link: a further hardware address on another link.
    Macvlan {
        /// Index of the other link.
        parent: u32,
        /// How it forwards.
        mode: Macvlan,
    },
    /// An ipvlan link: further IP addresses on another link, with the same hardware address.
    Ipvlan {
        /// Index of the other link.
        parent: u32,
        /// How it forwards.
        mode: Ipvlan,
        /// Who else it reaches.
        isolation: IpvlanIsolation,
    },
}

impl VirtualKind {
    /// The kernel's name of the kind.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Dummy => "dummy",
            Self::Bridge => "bridge",
            Self::Veth { .. } => "veth",
            Self::Vlan { .. } => "vlan",
            Self::Macvlan { .. } => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }
}

/// How macvlan links forward. See `ip-link(8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's mode of the same name")]
pub enum Macvlan {
    Bridge,
    Private,
    Vepa,
    Passthru,
}

/// How ipvlan links forward. See `ip-link(8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's mode of the same name")]
pub enum Ipvlan {
    L2,
    L3,
    L3S,
}

/// Who else on the other link an ipvlan link reaches. See `ip-link(8)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's flag of the same name")]
pub enum IpvlanIsolation {
    Bridge,
    Private,
    Vepa,
}

/// Changes of a link; `None` leaves a property as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// A new name. The request must name the link by its index, and the link must be switched off.
    pub name: Option<String>,
    /// Its alias (at most 255 bytes): a text for people, and by which programs recognise their
    /// links.
    pub alias: Option<String>,
    /// Maximum transmission unit in bytes.
    pub mtu: Option<u32>,
    /// Index of the bridge that it joins; 0 removes it from its bridge.
    pub controller: Option<u32>,
    /// Properties of a port. The link must be a port already.
    pub port: Option<BridgePort>,
    /// Whether it is switched on.
    pub up: Option<bool>,
}

impl LinkChange {
    /// Switches a link on.
    pub fn up() -> Self {
        Self {
            up: Some(true),
            ..Self::default()
        }
    }
}

/// Properties of a bridge's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgePort {
    /// Packets may go out by the port by which they came (hairpin).
    pub hairpin: bool,
    /// The bridge forwards nothing between isolated ports.
    pub isolated: bool,
}

/// An address to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAddress {
    /// Index of the link.
    pub link: u32,
    /// The address with the length of its network's prefix.
    pub prefix: IpPrefix,
    /// Who adds it (`IFA_PROTO`, Linux 5.18). The kernel uses 1 to 3 itself; 0 is nobody.
    pub protocol: u8,
    /// Whether it is valid on its link only (`scope link`).
    pub link_local: bool,
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

/// The operation and its object, as errors name them.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateLink(link) => {
                write!(f, "create {} link {}", link.kind.as_str(), link.name)
            }
            Self::ChangeLink(link, change) => change.describe(f, link),
            Self::RemoveLink(link) => write!(f, "remove link {link}"),
            Self::AddAddress(address) => {
                write!(f, "add address {} to link {}", address.prefix, address.link)
            }
            Self::RemoveAddress { link, prefix } => {
                write!(f, "remove address {prefix} from link {link}")
            }
            Self::SetRoute(route) => write!(f, "add route to {}", route.destination),
            Self::RemoveRoute(route) => write!(f, "remove route to {}", route.destination),
        }
    }
}

impl LinkChange {
    fn describe(&self, f: &mut fmt::Formatter<'_>, link: &LinkId) -> fmt::Result {
        match self {
            Self { mtu: Some(mtu), .. } => write!(f, "set MTU {mtu} of link {link}"),
            Self {
                controller: Some(_),
                ..
            } => write!(f, "set the bridge of link {link}"),
            Self { port: Some(_), .. } => write!(f, "set up link {link} as a port of its bridge"),
            Self { up: Some(true), .. } => write!(f, "switch link {link} on"),
            Self {
                up: Some(false), ..
            } => write!(f, "switch link {link} off"),
            _ => write!(f, "change link {link}"),
        }
    }
}
