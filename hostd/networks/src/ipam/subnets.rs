//! The subnets of a new network.

use keelson_model::ip::IpPrefix;

use super::addresses::Addresses;
use super::block::Block;
use super::check;
use super::pools::Pools;
use crate::types::{Addressing, AskedSubnet, Subnet};

/// What a new network needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubnetRequest<'a> {
    /// What was asked for.
    pub(crate) asked: &'a Addressing,
    /// Whether it has IPv4.
    pub(crate) ipv4: bool,
    /// Whether it has IPv6.
    pub(crate) ipv6: bool,
    /// Whether it gets an IPv4 gateway if none was requested.
    pub(crate) gateway_ipv4: bool,
    /// The same for IPv6.
    pub(crate) gateway_ipv6: bool,
    /// Whether it can have only one subnet of each family.
    pub(crate) one_each: bool,
    /// Subnets of other networks.
    pub(crate) taken: &'a [IpPrefix],
    /// Networks that the host reaches without a router. Automatic subnets avoid them.
    pub(crate) on_link: &'a [IpPrefix],
    /// The pools of automatic subnets.
    pub(crate) pools: &'a Pools,
}

/// The subnets of a new network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// IPv4 subnets come first.
    pub(crate) subnets: Vec<Subnet>,
    /// Requested options that have no effect, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Why a network can't have the requested subnets, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// The request is invalid. All problems, one line each.
    #[error("invalid network config:\n{0}")]
    Invalid(String),
    /// The address management driver `null` has no addresses.
    #[error("ipv{0} pool is empty")]
    Empty(u8),
    /// There is no such driver.
    #[error("plugin {0:?} not found")]
    NoDriver(String),
    /// More subnets than the network's driver supports.
    #[error("bridge driver doesn't support multiple subnets")]
    Several,
    /// Another network has it.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other}"
    )]
    Overlap {
        /// What was asked for.
        subnet: IpPrefix,
        /// The existing subnet.
        other: IpPrefix,
    },
    /// All default subnets are in use.
    #[error(
        "all predefined address pools have been fully subnetted: give the network a subnet, remove networks that are not used, or set more default address pools"
    )]
    Exhausted,
    /// The subnet or its range is too small.
    #[error("failed to allocate gateway (): no available addresses on this pool: {0}")]
    NoGateway(IpPrefix),
}

/// Chooses the subnets.
///
/// # Errors
/// [`SubnetError`].
pub(crate) fn allocate_subnets(request: SubnetRequest<'_>) -> Result<Allocated, SubnetError> {
    let mut warnings = Vec::new();
    let asked = request.asked;
    let mut subnets = match asked.driver.as_str() {
        "" | "default" => read(&request, &mut warnings)?,
        "null" => match (request.ipv4, request.ipv6) {
            (true, _) => return Err(SubnetError::Empty(4)),
            (_, true) => return Err(SubnetError::Empty(6)),
            _ => Vec::new(),
        },
        other => return Err(SubnetError::NoDriver(other.to_owned())),
    };
    if request.one_each {
        for ipv6 in [false, true] {
            if of_family(&subnets, ipv6).count() > 1 {
                return Err(SubnetError::Several);
            }
        }
    }
    overlaps(&subnets, request.taken)?;
    for (wanted, ipv6) in [(request.ipv4, false), (request.ipv6, true)] {
        if wanted && asked.driver != "null" && of_family(&subnets, ipv6).next().is_none() {
            subnets.push(from_pools_of(&request, &subnets, ipv6)?);
        }
    }
    for subnet in &mut subnets {
        let wanted = match subnet.prefix.address.is_ipv6() {
            true => request.gateway_ipv6,
            false => request.gateway_ipv4,
        };
        if wanted && subnet.gateway.is_none() {
            let mut addresses = Addresses::new(subnet);
            let gateway = addresses.take_any("gateway", &Default::default());
            subnet.gateway = Some(gateway.ok_or(SubnetError::NoGateway(subnet.prefix))?);
        }
    }
    // The sort is stable: within a family the order of the request is kept.
    subnets.sort_by_key(|subnet| subnet.prefix.address.is_ipv6());
    Ok(Allocated { subnets, warnings })
}

fn of_family(subnets: &[Subnet], ipv6: bool) -> impl Iterator<Item = &Subnet> {
    let all = subnets.iter();
    all.filter(move |subnet| subnet.prefix.address.is_ipv6() == ipv6)
}

/// The request, without values that the network can't use.
fn read(
    request: &SubnetRequest<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Subnet>, SubnetError> {
    let asked = &request.asked.subnets;
    let read = check::read(asked, request.ipv6).map_err(|problems| {
        SubnetError::Invalid(match problems.as_slice() {
            [one] => one.clone(),
            many => format!("* {}", many.join("\n* ")),
        })
    })?;
    let useless = |one: &&AskedSubnet| match one.subnet.contains(':') {
        true => !request.ipv6,
        false => !request.ipv4,
    };
    for one in asked.iter().filter(useless) {
        warnings.push(format!(
            "subnet {} is not used: the network has no IPv{}",
            one.subnet,
            if one.subnet.contains(':') { 6 } else { 4 }
        ));
    }
    let mut used = read;
    used.retain(|subnet| subnet.prefix.address.is_ipv6() || request.ipv4);
    Ok(used)
}

fn overlaps(subnets: &[Subnet], taken: &[IpPrefix]) -> Result<(), SubnetError> {
    let mut known = taken.to_vec();
    for subnet in subnets {
        let prefix = subnet.prefix;
        let mut others = known.iter();
        if let Some(other) = others.find(|other| super::overlap(**other, prefix)) {
            return Err(SubnetError::Overlap {
                subnet: prefix,
                other: *other,
            });
        }
        known.push(prefix);
    }
    Ok(())
}

fn from_pools_of(
    request: &SubnetRequest<'_>,
    subnets: &[Subnet],
    ipv6: bool,
) -> Result<Subnet, SubnetError> {
    let own = subnets.iter().map(|subnet| subnet.prefix);
    let others = request.taken.iter().chain(request.on_link).copied();
    let taken: Vec<Block> = own.chain(others).map(Block::of).collect();
    let prefix = request.pools.free(ipv6, &taken);
    Ok(Subnet {
        prefix: prefix.ok_or(SubnetError::Exhausted)?,
        range: None,
        gateway: None,
        auxiliary: Default::default(),
    })
}
