//! A checked lease. All values from a server are checked here before they are used for the link.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::message::{MessageOptions, Reply};

/// A lease without end.
pub const INFINITE: u32 = u32::MAX;
/// Shortest lease that is accepted, in seconds: with less, the machine would be busy with renewals.
/// Servers in laboratories and tests use times as short as this.
pub const MIN_LEASE: u32 = 10;
/// Longer leases count as this long, in seconds (a year). Renewing early does no harm.
pub const MAX_LEASE: u32 = 365 * 24 * 3600;
/// Shortest prefix that is accepted: a server that claims that half of the Internet is on the link
/// is wrong or hostile.
const MIN_PREFIX: u8 = 8;
const MAX_ROUTES: usize = 64;
const MAX_SERVERS: usize = 8;
/// How many problems are reported: a server may send hundreds of wrong values.
const MAX_LEFT_OUT: usize = 8;
/// A smaller MTU would switch IPv6 off on the link (RFC 8200 §5).
const MIN_MTU: u16 = 1280;

/// A lease from a DHCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 8 to 32.
    pub prefix: u8,
    /// Identifier of the server.
    pub server: Ipv4Addr,
    /// Routes, the default route among them.
    pub routes: Vec<LeaseRoute>,
    /// Name servers in the order in which to ask them.
    pub nameservers: Vec<Ipv4Addr>,
    /// Search domains.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// Maximum transmission unit.
    pub mtu: Option<u16>,
    /// Host name that the server assigns to this machine.
    pub hostname: Option<String>,
    /// Duration of the lease in seconds; [`INFINITE`] has no end.
    pub seconds: u32,
    /// Seconds until the lease is renewed with its server (T1).
    pub renew: u32,
    /// Seconds until any server is asked (T2).
    pub rebind: u32,
}

/// A route of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRoute {
    /// Network, host bits zero.
    pub destination: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Gateway. `None` if the network is on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

/// A value in a server's reply that is ignored. It is reported to the operator, because it may be
/// the reason why the network does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// A route whose router is not the address of another machine.
    Router(Ipv4Addr),
    /// A route to loopback or multicast addresses.
    Destination(Ipv4Addr, u8),
    /// More routes than are accepted.
    Routes,
    /// A name server or time server that is not a machine's address.
    Server(Ipv4Addr),
    /// An MTU below that of IPv6.
    Mtu(u16),
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(address) => write!(f, "router {address} is not another machine"),
            Self::Destination(network, prefix) => {
                write!(f, "a route to {network}/{prefix} is not for a network link")
            }
            Self::Routes => write!(f, "more than {MAX_ROUTES} routes"),
            Self::Server(address) => write!(f, "server {address} is not a machine"),
            Self::Mtu(mtu) => write!(f, "MTU {mtu} is less than {MIN_MTU}"),
        }
    }
}

/// Why a server's offer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Not the address of one machine.
    #[error("address {0} cannot be used by a machine")]
    Address(Ipv4Addr),
    /// Not a mask, or one of a network that is too big.
    #[error("subnet mask {0} is not usable")]
    Mask(Ipv4Addr),
    /// Without it an address may not be used.
    #[error("the lease time is missing")]
    NoTime,
    /// The lease is too short.
    #[error("a lease of {0} s is too short")]
    Short(u32),
    /// Option 54 is missing or is not the address of one machine.
    #[error("the server identifier is missing or not an address of a machine")]
    Server,
}

impl Lease {
    /// Makes a lease from an offer or an acknowledgement. Also returns the values that were
    /// ignored.
    ///
    /// The essential values (address, mask, times, server) must be correct. Wrong routes, servers
    /// and names are ignored. If the mask is missing or zero, it is derived from the address.
    ///
    /// # Errors
    /// The reason why the lease is unusable.
    pub fn from_reply(reply: &Reply) -> Result<(Self, Vec<LeftOut>), LeaseError> {
        let options = &reply.options;
        let address = reply.address;
        let server = options
            .server
            .filter(|server| is_host(*server))
            .ok_or(LeaseError::Server)?;
        let prefix = match options.mask.filter(|mask| !mask.is_unspecified()) {
            Some(mask) => prefix_of(mask).ok_or(LeaseError::Mask(mask))?,
            None => classful_prefix(address),
        };
        check_address(address, prefix)?;
        let seconds = match options.lease.ok_or(LeaseError::NoTime)? {
            INFINITE => INFINITE,
            seconds if seconds < MIN_LEASE => return Err(LeaseError::Short(seconds)),
            seconds => seconds.min(MAX_LEASE),
        };
        let (renew, rebind) = timers(seconds, options.renew, options.rebind);
        let mut left_out = Vec::new();
        let mtu = options.mtu.filter(|mtu| *mtu >= MIN_MTU);
        if mtu.is_none() {
            left_out.extend(options.mtu.map(LeftOut::Mtu));
        }
        let lease = Self {
            address,
            prefix,
            server,
            routes: routes(address, prefix, options, &mut left_out),
            nameservers: hosts(&options.nameservers, &mut left_out),
            search: options.search.clone(),
            ntp_servers: hosts(&options.ntp_servers, &mut left_out),
            mtu,
            hostname: options.hostname.clone(),
            seconds,
            renew,
            rebind,
        };
        Ok((lease, left_out))
    }

    /// Checks a lease from a file in the same way as one from a server.
    ///
    /// # Errors
    /// What makes the lease unusable.
    pub fn check(&self) -> Result<(), LeaseError> {
        if !is_host(self.server) {
            return Err(LeaseError::Server);
        }
        if !(MIN_PREFIX..=32).contains(&self.prefix) {
            return Err(LeaseError::Mask(mask_of(self.prefix.min(32))));
        }
        check_address(self.address, self.prefix)?;
        if self.seconds < MIN_LEASE
            || self.renew > self.rebind
            || self.rebind > self.seconds
            || (self.seconds != INFINITE && self.seconds > MAX_LEASE)
        {
            return Err(LeaseError::Short(self.seconds));
        }
        let gateways = self.routes.iter().filter_map(|route| route.gateway);
        for other in gateways.chain(self.nameservers.iter().copied()) {
            if !is_host(other) {
                return Err(LeaseError::Address(other));
            }
        }
        if self.routes.iter().any(|route| route.prefix > 32) {
            return Err(LeaseError::Mask(Ipv4Addr::UNSPECIFIED));
        }
        Ok(())
    }

    /// Whether the lease never ends.
    #[must_use]
    pub fn is_infinite(&self) -> bool {
        self.seconds == INFINITE
    }
}

/// T1 and T2: the server's if they are in order, else a half and seven eighths, as in RFC 2131
/// §4.4.5.
fn timers(seconds: u32, renew: Option<u32>, rebind: Option<u32>) -> (u32, u32) {
    if seconds == INFINITE {
        return (INFINITE, INFINITE);
    }
    let default_rebind = seconds / 8 * 7;
    let rebind = rebind
        .filter(|rebind| (4..seconds).contains(rebind))
        .unwrap_or(default_rebind);
    let renew =
        renew
            .filter(|renew| (2..rebind).contains(renew))
            .unwrap_or(if seconds / 2 < rebind {
                seconds / 2
            } else {
                rebind / 2
            });
    (renew, rebind)
}

/// Option 121 has priority over option 3 (RFC 3442). A router outside of the prefix is assumed to
/// be on the link, as other clients do, and gets its own route before the routes through it:
/// hosting providers use narrow prefixes and one router for all addresses.
fn routes(
    address: Ipv4Addr,
    prefix: u8,
    options: &MessageOptions,
    left_out: &mut Vec<LeftOut>,
) -> Vec<LeaseRoute> {
    let mut table = Table {
        address,
        prefix,
        routes: Vec::new(),
    };
    let mut add = |destination, length, gateway| {
        if let Err(reason) = table.add(destination, length, gateway)
            && !left_out.contains(&reason)
            && left_out.len() < MAX_LEFT_OUT
        {
            left_out.push(reason);
        }
    };
    if options.routes.is_empty() {
        // In the order of preference, but routers in the prefix first: if one is right and one is
        // wrong, the wrong one is outside. Only one default route is made.
        for inside in [true, false] {
            for router in &options.routers {
                if same_network(address, *router, prefix) == inside {
                    add(Ipv4Addr::UNSPECIFIED, 0, Some(*router));
                }
            }
        }
    } else {
        // Networks on the link first, since routers may lie in them.
        for on_link in [true, false] {
            for (destination, length, router) in &options.routes {
                if router.is_unspecified() == on_link {
                    add(*destination, *length, (!on_link).then_some(*router));
                }
            }
        }
    }
    // Networks that contain routers come before the routes through those.
    table.routes.sort_by_key(|route| route.gateway.is_some());
    table.routes
}

struct Table {
    address: Ipv4Addr,
    prefix: u8,
    routes: Vec<LeaseRoute>,
}

impl Table {
    /// Adds a route, and one to its router if no other route leads there. If several lead to one
    /// network, the first is used.
    fn add(
        &mut self,
        destination: Ipv4Addr,
        length: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), LeftOut> {
        let Some(destination) = network(destination, length) else {
            return Ok(());
        };
        if length > 0 && (destination.is_loopback() || destination.is_multicast()) {
            return Err(LeftOut::Destination(destination, length));
        }
        if let Some(gateway) = gateway
            && (!is_host(gateway) || gateway == self.address)
        {
            return Err(LeftOut::Router(gateway));
        }
        if self.has(destination, length) {
            return Ok(());
        }
        let to_gateway = gateway.filter(|gateway| !self.is_on_link(*gateway));
        if self.routes.len() + 1 + usize::from(to_gateway.is_some()) > MAX_ROUTES {
            return Err(LeftOut::Routes);
        }
        if let Some(gateway) = to_gateway
            // A route to the router itself through the router would lead nowhere.
            && (destination, length) != (gateway, 32)
        {
            self.push(gateway, 32, None);
        }
        let gateway = gateway.filter(|gateway| (destination, length) != (*gateway, 32));
        self.push(destination, length, gateway);
        Ok(())
    }

    fn push(&mut self, destination: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) {
        self.routes.push(LeaseRoute {
            destination,
            prefix,
            gateway,
        });
    }

    fn has(&self, destination: Ipv4Addr, length: u8) -> bool {
        self.routes
            .iter()
            .any(|route| route.destination == destination && route.prefix == length)
    }

    /// Whether the address's own network or a route leads to `gateway` without a router.
    fn is_on_link(&self, gateway: Ipv4Addr) -> bool {
        (self.prefix < 32 && same_network(self.address, gateway, self.prefix))
            || self.routes.iter().any(|route| {
                route.gateway.is_none() && same_network(route.destination, gateway, route.prefix)
            })
    }
}

fn hosts(list: &[Ipv4Addr], left_out: &mut Vec<LeftOut>) -> Vec<Ipv4Addr> {
    let mut out = Vec::new();
    for address in list {
        if !is_host(*address) {
            let reason = LeftOut::Server(*address);
            if !left_out.contains(&reason) && left_out.len() < MAX_LEFT_OUT {
                left_out.push(reason);
            }
        } else if !out.contains(address) && out.len() < MAX_SERVERS {
            out.push(*address);
        }
    }
    out
}

fn check_address(address: Ipv4Addr, prefix: u8) -> Result<(), LeaseError> {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let host = address.to_bits() & host_bits;
    // Networks of one and two addresses have neither a network nor a broadcast address.
    let reserved = prefix < 31 && (host == 0 || host == host_bits);
    if !is_host(address) || reserved {
        return Err(LeaseError::Address(address));
    }
    Ok(())
}

/// Whether an address can belong to another single machine: not 0/8, not loopback, not multicast,
/// not the reserved block 240/4 with the broadcast address.
#[must_use]
pub fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let length = bits.leading_ones() as u8;
    (bits.leading_ones() + bits.trailing_zeros() >= 32 && length >= MIN_PREFIX).then_some(length)
}

fn mask_of(prefix: u8) -> Ipv4Addr {
    let shift = 32 - u32::from(prefix.min(32));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(shift).unwrap_or(0))
}

/// Servers that send no mask mean the address's class (RFC 950).
fn classful_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

fn network(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    (prefix <= 32).then(|| address & mask_of(prefix))
}

fn same_network(left: Ipv4Addr, right: Ipv4Addr, prefix: u8) -> bool {
    network(left, prefix) == network(right, prefix)
}
