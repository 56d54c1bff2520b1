use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use keelson_model::ip::IpPrefix;
use proptest::prelude::*;

use super::block::{Block, address, number};
use super::subnets::Allocated;
use super::*;
use crate::types::{Addressing, AskedSubnet, Subnet};

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn asked(subnet: &str, range: &str, gateway: &str, auxiliary: &[(&str, &str)]) -> AskedSubnet {
    AskedSubnet {
        subnet: subnet.to_owned(),
        range: range.to_owned(),
        gateway: gateway.to_owned(),
        auxiliary: auxiliary
            .iter()
            .map(|(name, address)| ((*name).to_owned(), (*address).to_owned()))
            .collect(),
    }
}

fn plain(subnet: &str) -> AskedSubnet {
    asked(subnet, "", "", &[])
}

/// A bridge network with both families.
fn allocate(
    subnets: &[AskedSubnet],
    taken: &[IpPrefix],
    on_link: &[IpPrefix],
) -> Result<Allocated, SubnetError> {
    allocate_subnets(SubnetRequest {
        asked: &Addressing {
            subnets: subnets.to_vec(),
            ..Addressing::default()
        },
        ipv4: true,
        ipv6: true,
        gateway_ipv4: true,
        gateway_ipv6: true,
        one_each: true,
        taken,
        on_link,
        pools: &Pools::new(&[], "engine"),
    })
}

fn texts(allocated: &Allocated) -> Vec<(String, Option<String>)> {
    let subnets = allocated.subnets.iter();
    subnets
        .map(|subnet| {
            let gateway = subnet.gateway.map(|gateway| gateway.to_string());
            (subnet.prefix.to_string(), gateway)
        })
        .collect()
}

fn space(subnet: &str, range: &str, gateway: &str, auxiliary: &[(&str, &str)]) -> Space {
    let family = subnet.contains(':');
    let allocated = allocate(&[asked(subnet, range, gateway, auxiliary)], &[], &[]).unwrap();
    let mut subnets = allocated.subnets;
    subnets.retain(|subnet| subnet.prefix.address.is_ipv6() == family);
    Space::new(&subnets)
}

fn any(space: &mut Space, ipv6: bool) -> Option<String> {
    let given = space.take_any(ipv6, "c", &[]);
    given.map(|given| given.address.to_string())
}

#[test]
fn default_pools_are_docker_s() {
    let pools = Pools::new(&[], "engine");
    let mut taken = Vec::new();
    let mut got = Vec::new();
    while let Some(subnet) = pools.free(false, &taken) {
        taken.push(Block::of(subnet));
        got.push(subnet.to_string());
    }
    assert_eq!(got.len(), 15 + 16);
    assert_eq!(got[0], "172.17.0.0/16");
    assert_eq!(got[14], "172.31.0.0/16");
    assert_eq!(got[15], "192.168.0.0/20");
    assert_eq!(got[30], "192.168.240.0/20");
}

#[test]
fn ipv6_subnets_stay_the_same_for_an_engine() {
    let first = |engine: &str| Pools::new(&[], engine).free(true, &[]).unwrap();
    let subnet = first("a");
    assert_eq!(subnet, first("a"));
    assert_ne!(subnet, first("b"));
    assert_eq!(subnet.length, 64);
    assert!(prefix("fd00::/8").contains(subnet.address));
    let next = Pools::new(&[], "a")
        .free(true, &[Block::of(subnet)])
        .unwrap();
    assert_eq!(number(next.address) - number(subnet.address), 1 << 64);
}

#[test]
fn pools_can_be_configured() {
    let pool = |base, size| AddressPool::new(prefix(base), size).unwrap();
    let pools = Pools::new(&[pool("10.1.2.0/23", 24), pool("10.9.0.0/24", 28)], "e");
    assert_eq!(pools.free(false, &[]), Some(prefix("10.1.2.0/24")));
    // The list is not sorted, and the used networks are smaller or larger than a subnet.
    let taken = [
        "10.9.0.5/32",
        "10.1.3.128/25",
        "10.1.2.0/30",
        "10.9.0.16/28",
    ];
    let taken = taken.map(|text| Block::of(prefix(text)));
    assert_eq!(pools.free(false, &taken), Some(prefix("10.9.0.32/28")));
    let all = [Block::of(prefix("10.0.0.0/8"))];
    assert_eq!(pools.free(false, &all), None);
    assert!(pools.free(true, &[]).is_some());
    for (base, size) in [("10.0.0.0/16", 15), ("10.0.0.0/16", 31), ("fd00::/8", 127)] {
        let error = AddressPool::new(prefix(base), size).unwrap_err();
        assert!(
            error.to_string().contains("the size must be between"),
            "{error}"
        );
    }
}

/// Nothing may take time or memory in proportion to the number of addresses.
#[test]
fn huge_pools_cost_nothing() {
    let all = AddressPool::new(prefix("::/1"), 126).unwrap();
    let pools = Pools::new(&[all], "e");
    let taken = [Block::of(prefix("::/2")), Block::of(prefix("4000::/3"))];
    assert_eq!(pools.free(true, &taken), Some(prefix("6000::/126")));
    let end = AddressPool::new(prefix("ffff::/16"), 16).unwrap();
    let pools = Pools::new(&[end], "e");
    assert_eq!(pools.free(true, &[Block::of(prefix("ffff::/16"))]), None);
    let mut huge = space("2001:db8::/32", "", "", &[]);
    assert_eq!(any(&mut huge, true).as_deref(), Some("2001:db8::2"));
    // The range ends at the end of 64 bits.
    let mut range = space("fd00::/16", "fd00::ffff:ffff:ffff:fffe/127", "fd00::1", &[]);
    assert_eq!(
        any(&mut range, true).as_deref(),
        Some("fd00::ffff:ffff:ffff:fffe")
    );
    assert_eq!(
        any(&mut range, true).as_deref(),
        Some("fd00::ffff:ffff:ffff:ffff")
    );
    assert_eq!(any(&mut range, true), None);
}

#[test]
fn automatic_subnets_avoid_the_hosts_routes_and_other_networks() {
    let taken = [prefix("172.17.0.0/16"), prefix("172.19.0.0/24")];
    let on_link = [prefix("172.18.5.9/24")];
    let got = texts(&allocate(&[], &taken, &on_link).unwrap());
    assert_eq!(
        got[0],
        ("172.20.0.0/16".to_owned(), Some("172.20.0.1".to_owned()))
    );
    assert!(got[1].0.starts_with("fd") && got[1].1.as_deref().unwrap().ends_with("::1"));
    // A requested subnet may be on a link of the host.
    let got = allocate(&[plain("172.18.5.0/24")], &taken, &on_link).unwrap();
    assert_eq!(got.subnets[0].prefix, prefix("172.18.5.0/24"));
    let error = allocate(&[plain("172.17.4.0/24")], &taken, &[]).unwrap_err();
    let words = "invalid pool request: Pool overlaps with other one on this address space";
    assert!(error.to_string().starts_with(words), "{error}");
    let everything = [prefix("172.16.0.0/12"), prefix("192.168.0.0/16")];
    let error = allocate(&[], &everything, &[]).unwrap_err();
    let words = "all predefined address pools have been fully subnetted";
    assert!(error.to_string().starts_with(words), "{error}");
    let two = [plain("10.0.0.0/24"), plain("10.0.1.0/24")];
    let error = allocate(&two, &[], &[]).unwrap_err().to_string();
    assert_eq!(error, "bridge driver doesn't support multiple subnets");
}

#[test]
fn gateways_are_chosen_in_the_range() {
    let gateway = |one: AskedSubnet| {
        let subnets = allocate(&[one], &[], &[]).unwrap().subnets;
        subnets[0].gateway.unwrap().to_string()
    };
    assert_eq!(gateway(plain("10.0.0.0/24")), "10.0.0.1");
    assert_eq!(
        gateway(asked("10.0.0.0/16", "10.0.5.0/24", "", &[])),
        "10.0.5.0"
    );
    assert_eq!(
        gateway(asked("10.0.0.0/24", "", "10.0.0.254", &[])),
        "10.0.0.254"
    );
    assert_eq!(
        gateway(asked("10.0.0.0/24", "", "", &[("r", "10.0.0.1")])),
        "10.0.0.2"
    );
    let error = allocate(&[asked("10.0.0.0/30", "10.0.0.0/32", "", &[])], &[], &[]).unwrap_err();
    assert!(
        error.to_string().starts_with("failed to allocate gateway"),
        "{error}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = |list: &[AskedSubnet]| allocate(list, &[], &[]).unwrap_err().to_string();
    assert_eq!(
        error(&[asked(
            "10.0.0.1/24",
            "10.0.1.1/25",
            "10.1.0.1",
            &[("a", "x"), ("b", "fd00::1")]
        )]),
        "invalid network config:\n\
         * invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24\n\
         * invalid ip-range 10.0.1.1/25: it should be 10.0.1.0/25\n\
         * invalid ip-range 10.0.1.1/25: parent subnet 10.0.0.0/24 doesn't contain ip-range\n\
         * invalid gateway 10.1.0.1: parent subnet 10.0.0.0/24 doesn't contain this address\n\
         * invalid auxiliary address a: invalid address\n\
         * invalid auxiliary address b: parent subnet is an IPv4 block"
    );
    for (one, line) in [
        (plain(""), "invalid subnet : invalid CIDR block notation"),
        (
            plain("10.0.0.0/33"),
            "invalid subnet 10.0.0.0/33: invalid CIDR block notation",
        ),
        (
            plain("127.1.0.0/16"),
            "invalid subnet 127.1.0.0/16: these addresses are the loopback",
        ),
        (
            plain("224.0.1.0/24"),
            "invalid subnet 224.0.1.0/24: multicast subnet is not allowed",
        ),
        (
            plain("fe80::/64"),
            "invalid subnet fe80::/64: it clashes with the Link-Local prefix",
        ),
        (
            asked("10.0.0.0/24", "x", "", &[]),
            "invalid ip-range x: invalid CIDR block notation",
        ),
        (
            asked("10.0.0.0/24", "10.0.0.0/23", "", &[]),
            "invalid ip-range 10.0.0.0/23: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        ),
        (
            asked("10.0.0.0/24", "fd00::/64", "", &[]),
            "invalid ip-range fd00::/64: parent subnet is an IPv4 block",
        ),
        (
            asked("10.0.0.0/24", "", "y", &[]),
            "invalid gateway y: invalid address",
        ),
        (
            asked("10.0.0.0/24", "", "10.0.0.0", &[]),
            "invalid gateway 10.0.0.0: it is the subnet's own address",
        ),
        (
            asked("10.0.0.0/24", "", "10.0.0.255", &[]),
            "invalid gateway 10.0.0.255: it is the subnet's broadcast address",
        ),
        (
            asked("fd00::/64", "", "fd00::", &[]),
            "invalid gateway fd00::: it is the subnet's router anycast address",
        ),
        (
            asked("10.0.0.0/24", "", "10.0.0.9", &[("a", "10.0.0.9")]),
            "invalid auxiliary address a: 10.0.0.9 is the gateway's",
        ),
        (
            asked(
                "10.0.0.0/24",
                "",
                "",
                &[("a", "10.0.0.9"), ("b", "10.0.0.9")],
            ),
            "invalid auxiliary address b: 10.0.0.9 is that of a, too",
        ),
    ] {
        let found = error(std::slice::from_ref(&one));
        let expected = format!("invalid network config:\n{line}");
        assert!(found.starts_with(&expected), "{found:?} {expected:?}");
    }
}

#[test]
fn families_that_a_network_does_not_have() {
    let pools = Pools::new(&[], "e");
    let addressing = |driver: &str| Addressing {
        driver: driver.to_owned(),
        subnets: vec![plain("fd00:1::/64"), plain("10.0.0.0/24")],
        ..Addressing::default()
    };
    let default = addressing("default");
    let request = SubnetRequest {
        asked: &default,
        ipv4: true,
        ipv6: false,
        gateway_ipv4: false,
        gateway_ipv6: false,
        one_each: true,
        taken: &[],
        on_link: &[],
        pools: &pools,
    };
    let got = allocate_subnets(request).unwrap();
    assert_eq!(texts(&got), [("10.0.0.0/24".to_owned(), None)]);
    assert_eq!(
        got.warnings,
        ["subnet fd00:1::/64 is not used: the network has no IPv6"]
    );
    let both = SubnetRequest {
        ipv6: true,
        ..request
    };
    let got = texts(&allocate_subnets(both).unwrap());
    assert_eq!(got[0].0, "10.0.0.0/24", "IPv4 comes first");
    let neither = SubnetRequest {
        ipv4: false,
        ..request
    };
    assert_eq!(allocate_subnets(neither).unwrap().subnets, []);
    let null = addressing("null");
    let error = allocate_subnets(SubnetRequest {
        asked: &null,
        ..request
    });
    assert_eq!(error.unwrap_err().to_string(), "ipv4 pool is empty");
    let other = addressing("infoblox");
    let error = allocate_subnets(SubnetRequest {
        asked: &other,
        ..request
    });
    assert_eq!(
        error.unwrap_err().to_string(),
        "plugin \"infoblox\" not found"
    );
}

#[test]
fn addresses_follow_each_other_and_wrap() {
    let mut space = space("10.0.0.0/29", "", "", &[("printer", "10.0.0.3")]);
    let mut got = Vec::new();
    while let Some(address) = any(&mut space, false) {
        got.push(address);
    }
    assert_eq!(got, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    space.release(ip("10.0.0.4"));
    space.release(ip("10.0.0.2"));
    assert_eq!(any(&mut space, false).as_deref(), Some("10.0.0.2"));
    space.release(ip("10.0.0.2"));
    assert_eq!(
        any(&mut space, false).as_deref(),
        Some("10.0.0.4"),
        "not the same at once"
    );
    for (address, words) in [
        (
            "10.0.0.1",
            "Address already in use: 10.0.0.1 is the gateway's",
        ),
        (
            "10.0.0.3",
            "Address already in use: 10.0.0.3 is reserved for \"printer\"",
        ),
        (
            "10.0.0.4",
            "Address already in use: 10.0.0.4 is the address of container c",
        ),
        (
            "10.0.0.0",
            "Address already in use: 10.0.0.0: it is the subnet's own address",
        ),
        (
            "10.0.0.7",
            "Address already in use: 10.0.0.7: it is the subnet's broadcast address",
        ),
        (
            "10.0.0.8",
            "no configured subnet or ip-range contain the IP address 10.0.0.8",
        ),
    ] {
        let error = space.take(ip(address), "d").unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}

#[test]
fn small_subnets() {
    for (subnet, all) in [
        ("10.0.0.0/30", &["10.0.0.2"][..]),
        ("10.0.0.0/31", &["10.0.0.1"]),
        ("10.0.0.0/32", &[]),
        ("fd00::/126", &["fd00::2", "fd00::3"]),
        ("fd00::/127", &[]),
    ] {
        let ipv6 = subnet.contains(':');
        let mut space = space(subnet, "", "", &[]);
        let mut got = Vec::new();
        while let Some(address) = any(&mut space, ipv6) {
            got.push(address);
        }
        assert_eq!(got, all, "{subnet}");
    }
}

#[test]
fn a_range_limits_only_automatic_addresses() {
    let mut space = space("10.0.0.0/24", "10.0.0.64/30", "10.0.0.1", &[]);
    space.take(ip("10.0.0.200"), "s").unwrap();
    space.take(ip("10.0.0.65"), "s").unwrap();
    let got: Vec<_> = std::iter::from_fn(|| any(&mut space, false)).collect();
    assert_eq!(got, ["10.0.0.64", "10.0.0.66", "10.0.0.67"]);
}

#[test]
fn configured_addresses_are_given_to_others_last() {
    let mut space = space("10.0.0.0/29", "", "", &[]);
    let configured = [ip("10.0.0.2"), ip("10.0.0.4"), ip("fd00::3")];
    let mut next = || {
        let given = space.take_any(false, "c", &configured);
        given.map(|given| given.address.to_string())
    };
    let got: Vec<_> = std::iter::from_fn(&mut next).collect();
    assert_eq!(
        got,
        ["10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.4"]
    );
}

#[test]
fn a_network_with_several_subnets_uses_all() {
    let subnet = |text: &str| Subnet {
        prefix: prefix(text),
        range: None,
        gateway: None,
        auxiliary: BTreeMap::new(),
    };
    let mut space = Space::new(&[subnet("10.0.0.0/30"), subnet("10.0.1.0/30")]);
    let got: Vec<_> = std::iter::from_fn(|| any(&mut space, false)).collect();
    assert_eq!(got, ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2"]);
    assert_eq!(space.take_any(true, "c", &[]), None);
}

/// A model of a small subnet: a simple list of all addresses.
struct Naive {
    range: Vec<IpAddr>,
    all: BTreeSet<IpAddr>,
    used: BTreeSet<IpAddr>,
    last: Option<IpAddr>,
}

impl Naive {
    fn take_any(&mut self, avoided: &[IpAddr]) -> Option<IpAddr> {
        let after = self.last;
        let later = self
            .range
            .iter()
            .filter(|address| after.is_none_or(|last| **address > last));
        let earlier = self
            .range
            .iter()
            .filter(|address| after.is_some_and(|last| **address <= last));
        let order: Vec<IpAddr> = later.chain(earlier).copied().collect();
        let free = |address: &&IpAddr| !self.used.contains(*address);
        let found = order
            .iter()
            .filter(free)
            .find(|address| !avoided.contains(address))
            .or_else(|| order.iter().find(free))
            .copied()?;
        self.used.insert(found);
        self.last = Some(found);
        Some(found)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Any(Vec<u8>),
    Take(u8),
    Release(u8),
    /// The engine is killed: its state is built again from the running containers.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(any_of::<u8>(), 0..4).prop_map(Step::Any),
        2 => any_of::<u8>().prop_map(Step::Take),
        3 => any_of::<u8>().prop_map(Step::Release),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..80)
}

use proptest::prelude::any as any_of;

proptest! {
    #[test]
    fn addresses_are_those_of_a_naive_model(
        ipv6 in any_of::<bool>(),
        length in 26_u8..=31,
        narrow in any_of::<bool>(),
        steps in steps(),
    ) {
        let (base, length) = match ipv6 {
            true => ("fd00:0:0:1:ffff:ffff:ffff:ff00", length + 96),
            false => ("10.0.0.0", length),
        };
        let whole = IpPrefix { address: ip(base), length };
        let block = Block::of(whole);
        let range = narrow.then(|| IpPrefix {
            address: address(ipv6, block.last),
            length: length + 1,
        }).map(super::block::masked);
        let subnet = Subnet { prefix: whole, range, gateway: None, auxiliary: BTreeMap::new() };
        let all: BTreeSet<IpAddr> = (block.first..=block.last)
            .map(|number| address(ipv6, number))
            .filter(|address| super::check::unusable(whole, *address).is_none())
            .collect();
        let in_range = all.iter().filter(|address| range.is_none_or(|range| range.contains(**address)));
        let mut naive = Naive {
            range: in_range.copied().collect(),
            all,
            used: BTreeSet::new(),
            last: None,
        };
        let mut space = Space::new(std::slice::from_ref(&subnet));
        let nth = |number: u8| address(ipv6, block.first + u128::from(number) % (block.last - block.first + 1));
        for step in steps {
            match step {
                Step::Any(avoided) => {
                    let avoided: Vec<_> = avoided.into_iter().map(nth).collect();
                    let got = space.take_any(ipv6, "c", &avoided).map(|given| given.address);
                    prop_assert_eq!(got, naive.take_any(&avoided));
                }
                Step::Take(number) => {
                    let wanted = nth(number);
                    let free = naive.all.contains(&wanted) && naive.used.insert(wanted);
                    prop_assert_eq!(space.take(wanted, "c").is_ok(), free);
                }
                Step::Release(number) => {
                    naive.used.remove(&nth(number));
                    space.release(nth(number));
                }
                Step::Crash => {
                    space = Space::new(std::slice::from_ref(&subnet));
                    naive.last = None;
                    for address in &naive.used {
                        prop_assert!(space.take(*address, "c").is_ok());
                    }
                }
            }
        }
    }

    /// Networks come and go beside a host's own routes. No two of them overlap.
    #[test]
    fn subnets_never_overlap(
        routes in prop::collection::vec((any_of::<u32>(), 9_u8..=30), 0..6),
        steps in prop::collection::vec((any_of::<bool>(), any_of::<prop::sample::Index>()), 0..60),
    ) {
        let on_link: Vec<IpPrefix> = routes.into_iter().map(|(bits, length)| IpPrefix {
            // Near the pools.
            address: std::net::Ipv4Addr::from_bits(bits & 0x001f_ffff | 0xac10_0000).into(),
            length,
        }).collect();
        let mut taken: Vec<IpPrefix> = Vec::new();
        for (remove, index) in steps {
            if remove && !taken.is_empty() {
                taken.remove(index.index(taken.len()));
                continue;
            }
            match allocate(&[], &taken, &on_link) {
                Ok(got) => for subnet in got.subnets {
                    let others = taken.iter().chain(&on_link);
                    for other in others {
                        prop_assert!(!overlap(*other, subnet.prefix), "{other} {}", subnet.prefix);
                    }
                    taken.push(subnet.prefix);
                },
                Err(error) => {
                    prop_assert_eq!(error, SubnetError::Exhausted);
                    // Every subnet of the default pools has something in it.
                    let mut pool = (17..=31).map(|part| prefix(&format!("172.{part}.0.0/16")))
                        .chain((0..16).map(|part| prefix(&format!("192.168.{}.0/20", part * 16))));
                    let is_used = |subnet| {
                        taken.iter().chain(&on_link).any(|other| overlap(*other, subnet))
                    };
 prop_assert!(pool.all(is_used));
                }
            }
        }
    }
}
