//! Checks requested subnets. All problems are reported at once, in Docker's words.

use std::collections::BTreeMap;
use std::net::IpAddr;

use keelson_model::ip::IpPrefix;

use super::block::{Block, masked, number, overlap};
use crate::types::{AskedSubnet, Subnet};

/// Networks that no bridge may use, because the host itself or the protocol needs them.
const SPECIAL: &[(&str, &str)] = &[
    ("0.0.0.0/8", "these addresses name this host"),
    (
        "127.0.0.0/8",
        "these addresses are the loopback interface's",
    ),
    ("224.0.0.0/4", "multicast subnet is not allowed"),
    (
        "::/64",
        "these addresses are reserved, ::1 is the loopback interface's",
    ),
    (
        "fe80::/10",
        "it clashes with the Link-Local prefix 'fe80::/64'",
    ),
    ("ff00::/8", "multicast subnet is not allowed"),
];

/// Why a text is no address of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum WrongAddress {
    #[error("invalid address")]
    Text,
    #[error("parent subnet is an {} block", family(*.0))]
    Family(IpPrefix),
    #[error("parent subnet {0} doesn't contain this address")]
    Outside(IpPrefix),
    #[error("{0}")]
    Unusable(&'static str),
}

/// Reads subnets. Those of IPv6 are passed over when the network has none, as with Docker.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn read(asked: &[AskedSubnet], ipv6: bool) -> Result<Vec<Subnet>, Vec<String>> {
    let mut problems = Vec::new();
    let mut subnets = Vec::new();
    for one in asked {
        let Ok(prefix) = prefix(&one.subnet) else {
            problems.push(format!(
                "invalid subnet {}: invalid CIDR block notation",
                one.subnet
            ));
            continue;
        };
        if prefix.address.is_ipv6() && !ipv6 {
            continue;
        }
        let whole = masked(prefix);
        if whole != prefix {
            problems.push(format!("invalid subnet {prefix}: it should be {whole}"));
        }
        if let Some(why) = special(whole) {
            problems.push(format!("invalid subnet {prefix}: {why}"));
        }
        let range = read_range(&one.range, whole, &mut problems);
        let gateway = read_address(&one.gateway, whole)
            .map_err(|why| problems.push(format!("invalid gateway {}: {why}", one.gateway)))
            .ok()
            .flatten();
        let auxiliary = read_auxiliary(one, whole, gateway, &mut problems);
        subnets.push(Subnet {
            prefix: whole,
            range,
            gateway,
            auxiliary,
        });
    }
    match problems.is_empty() {
        true => Ok(subnets),
        false => Err(problems),
    }
}

fn prefix(text: &str) -> Result<IpPrefix, ()> {
    text.parse().map_err(drop)
}

const fn family(prefix: IpPrefix) -> &'static str {
    match prefix.address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn special(prefix: IpPrefix) -> Option<&'static str> {
    let found = SPECIAL.iter().find(|(special, _)| {
        special
            .parse()
            .is_ok_and(|special| overlap(special, prefix))
    });
    found.map(|(_, why)| *why)
}

fn read_range(text: &str, whole: IpPrefix, problems: &mut Vec<String>) -> Option<IpPrefix> {
    if text.is_empty() {
        return None;
    }
    let mut wrong = |why: String| problems.push(format!("invalid ip-range {text}: {why}"));
    let Ok(range) = prefix(text) else {
        wrong("invalid CIDR block notation".to_owned());
        return None;
    };
    if family(range) != family(whole) {
        wrong(format!("parent subnet is an {} block", family(whole)));
        return None;
    }
    if range.length < whole.length {
        wrong(format!(
            "CIDR block is bigger than its parent subnet {whole}"
        ));
    }
    if masked(range) != range {
        wrong(format!("it should be {}", masked(range)));
    }
    if !overlap(range, whole) {
        wrong(format!("parent subnet {whole} doesn't contain ip-range"));
    }
    Some(masked(range))
}

fn read_address(text: &str, whole: IpPrefix) -> Result<Option<IpAddr>, WrongAddress> {
    if text.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = text.parse().map_err(|_| WrongAddress::Text)?;
    if address.is_ipv6() != whole.address.is_ipv6() {
        return Err(WrongAddress::Family(whole));
    }
    if !whole.contains(address) {
        return Err(WrongAddress::Outside(whole));
    }
    match unusable(whole, address) {
        Some(why) => Err(WrongAddress::Unusable(why)),
        None => Ok(Some(address)),
    }
}

/// Why interfaces can't have addresses of a subnet.
pub(super) fn unusable(subnet: IpPrefix, address: IpAddr) -> Option<&'static str> {
    let block = Block::of(subnet);
    let usable = usable(subnet);
    match number(address) {
        number if usable.holds(number) => None,
        number if number == block.last => Some("it is the subnet's broadcast address"),
        _ if block.ipv6 => Some("it is the subnet's router anycast address"),
        _ => Some("it is the subnet's own address"),
    }
}

/// The addresses of a subnet that interfaces can have. In IPv6 the first one belongs to all routers
/// (RFC 4291, section 2.6.1). In IPv4 the first one is the subnet's own and the last one is for
/// broadcasts, except in the smallest subnets (RFC 3021).
pub(super) fn usable(subnet: IpPrefix) -> Block {
    let mut block = Block::of(subnet);
    let size = block.last - block.first;
    if block.ipv6 && size > 0 {
        block.first += 1;
    }
    if !block.ipv6 && size > 1 {
        block.first += 1;
        block.last -= 1;
    }
    block
}

fn read_auxiliary(
    one: &AskedSubnet,
    whole: IpPrefix,
    gateway: Option<IpAddr>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, IpAddr> {
    let mut found: BTreeMap<String, IpAddr> = BTreeMap::new();
    for (name, text) in &one.auxiliary {
        let mut wrong =
            |why: String| problems.push(format!("invalid auxiliary address {name}: {why}"));
        let address = match read_address(text, whole) {
            Ok(Some(address)) => address,
            Ok(None) => {
                wrong("invalid address".to_owned());
                continue;
            }
            Err(why) => {
                wrong(why.to_string());
                continue;
            }
        };
        if Some(address) == gateway {
            wrong(format!("{address} is the gateway's"));
        }
        if let Some((other, _)) = found.iter().find(|(_, known)| **known == address) {
            wrong(format!("{address} is that of {other}, too"));
        }
        found.insert(name.clone(), address);
    }
    found
}
