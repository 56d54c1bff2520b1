use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;
use crate::types::{Addressing, Bridge};

fn network(name: &str, prefix: &str) -> Network {
    Network {
        id: format!("id of {name}"),
        name: name.to_owned(),
        created: Timestamp::UNIX_EPOCH,
        driver: Driver::Bridge(Bridge {
            interface_prefix: prefix.to_owned(),
            ..Bridge::new("br")
        }),
        internal: false,
        attachable: false,
        ipv4: true,
        ipv6: false,
        subnets: Vec::new(),
        asked: Addressing::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: false,
        unreadable: None,
    }
}

fn spec(network: &str, priority: i64, interface: Option<&str>) -> ConnectionSpec {
    ConnectionSpec {
        network: network.to_owned(),
        gateway_priority: priority,
        interface: interface.map(str::to_owned),
        ..ConnectionSpec::default()
    }
}

/// The names of interfaces, by the names of their networks.
fn names(wishes: &[(&str, i64, Option<&str>)]) -> Vec<(String, String)> {
    let networks: Vec<_> = wishes
        .iter()
        .map(|(name, ..)| network(name, "eth"))
        .collect();
    let wishes = wishes.iter();
    let specs: Vec<_> = wishes
        .map(|(name, priority, own)| spec(name, *priority, *own))
        .collect();
    let mut wishes: Vec<Wish<'_>> = specs.iter().zip(&networks).collect();
    order(&mut wishes);
    let names = interfaces(std::iter::empty(), &wishes).unwrap();
    let networks = wishes.iter().map(|(_, network)| network.name.clone());
    networks.zip(names).collect()
}

#[test]
fn interfaces_have_the_same_names_after_each_start() {
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        let list = list.iter();
        list.map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    // The main one, then by priority, then by name, whatever the order of the request.
    let expected = pairs(&[("m", "eth0"), ("z", "eth1"), ("a", "eth2"), ("b", "eth3")]);
    let (main, a, b, z) = (
        ("m", 0, None),
        ("a", 0, None),
        ("b", 0, None),
        ("z", 5, None),
    );
    assert_eq!(names(&[main, b, z, a]), expected);
    assert_eq!(names(&[main, a, b, z]), expected);
    // A requested name is given to no other interface.
    let found = names(&[
        main,
        ("a", 0, None),
        ("b", 0, Some("eth0")),
        ("c", 0, Some("wan")),
    ]);
    let expected = pairs(&[("m", "eth1"), ("a", "eth2"), ("b", "eth0"), ("c", "wan")]);
    assert_eq!(found, expected);
}

#[test]
fn further_interfaces_take_the_first_free_number() {
    let (lan, wan) = (network("a", "eth"), network("b", "wan"));
    let (a, b) = (spec("a", 0, None), spec("b", 0, None));
    let used = || ["eth0", "eth2", "wan0"].map(str::to_owned).into_iter();
    let found = interfaces(used(), &[(&a, &lan), (&b, &wan)]).unwrap();
    assert_eq!(found, ["eth1", "wan1"]);
    let same = spec("a", 0, Some("eth2"));
    let error = interfaces(used(), &[(&same, &lan)]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("interface name eth2 is that of another"),
        "{error}"
    );
}
