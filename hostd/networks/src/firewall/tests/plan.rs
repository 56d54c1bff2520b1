//! The elements of networks and endpoints. Nothing here needs a kernel.

use keelson_model::spec::Protocol;
use keelson_nftables::{Datum, Value, Verdict};

use super::world::*;
use crate::firewall::part::Part;
use crate::firewall::table::rules;
use crate::firewall::*;
use crate::settings::FilterOptions;
use crate::types::{Driver, GatewayMode};

/// Elements as text: `to4 br1 : goto to_nat`.
fn texts(elements: &Elements) -> Vec<String> {
    let join = |values: &[Value]| {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        values.join(" . ")
    };
    elements
        .iter()
        .map(|(part, key, datum)| {
            let start = format!("{} {}", part.set().name, join(key));
            match datum {
                None => start,
                Some(Datum::Values(values)) => format!("{start} : {}", join(values)),
                Some(Datum::Verdict(Verdict::Goto(chain))) => format!("{start} : goto {chain}"),
                Some(Datum::Verdict(verdict)) => format!("{start} : {verdict:?}"),
            }
        })
        .collect()
}

#[test]
fn a_network_is_a_few_elements() {
    assert_eq!(
        texts(&elements_of_network(&network(1))),
        [
            "bridges br1",
            "same br1 . br1",
            "within br1 . br1 : Accept",
            "to4 br1 : goto to_nat",
            "to6 br1 : goto to_nat",
            "masquerade4 br1",
            "masquerade6 br1",
        ]
    );
    let mut internal = with(1, |bridge| bridge.inter_container = false);
    internal.internal = true;
    internal.ipv6 = false;
    assert_eq!(
        texts(&elements_of_network(&internal)),
        [
            "bridges br1",
            "same br1 . br1",
            "within br1 . br1 : goto separate",
            "from br1 : Drop",
            "to4 br1 : Drop",
            "to6 br1 : Drop",
        ]
    );
    let modes = with(1, |bridge| {
        bridge.mode_ipv4 = GatewayMode::NatUnprotected;
        bridge.mode_ipv6 = GatewayMode::Routed;
        bridge.source_ipv4 = Some("192.0.2.7".parse().unwrap());
        bridge.trusted = vec!["eth0".to_owned(), "wg0".to_owned()];
    });
    assert_eq!(
        texts(&elements_of_network(&modes)),
        [
            "bridges br1",
            "same br1 . br1",
            "within br1 . br1 : Accept",
            "to4 br1 : goto to_open",
            "to6 br1 : goto to_routed",
            "trusted eth0 . br1",
            "trusted wg0 . br1",
            "source4 br1 : 192.0.2.7",
        ]
    );
    let mut none = network(1);
    none.driver = Driver::Nothing;
    assert!(elements_of_network(&none).is_empty());
}

#[test]
fn a_published_port_is_one_element() {
    let bindings = [
        binding("0.0.0.0", 8080, 80, Protocol::Tcp),
        binding("::", 8080, 80, Protocol::Tcp),
        binding("192.0.2.1", 53, 5353, Protocol::Udp),
        binding("2001:db8:2::1", 53, 5353, Protocol::Sctp),
        binding("::1", 54, 54, Protocol::Udp),
    ];
    let of = |network: &crate::types::Network, endpoint| {
        texts(&elements_of_endpoint(network, &endpoint, &bindings, false))
    };
    let usual = network(1);
    assert_eq!(
        of(&usual, endpoint(1, 2)),
        [
            "self4 172.30.1.2 . 172.30.1.2",
            "self6 2001:db8:30:1::2 . 2001:db8:30:1::2",
            "ports4 192.0.2.1 . 17 . 53 : 172.30.1.2 . 5353",
            "ports6 2001:db8:2::1 . 132 . 53 : 2001:db8:30:1::2 . 5353",
            "any4 6 . 8080 : 172.30.1.2 . 80",
            "any6 6 . 8080 : 2001:db8:30:1::2 . 80",
            "refused6 6 . 8080",
            "refused6 17 . 54",
        ]
    );
    // Each family is published where its default route leads.
    let mut second = endpoint(1, 2);
    second.default_ipv6 = false;
    assert_eq!(of(&usual, second).len(), 3);
    let mut without = endpoint(1, 2);
    without.ipv6 = None;
    assert_eq!(of(&usual, without).len(), 3);
    // Routed networks open the container's ports, wherever the default route leads.
    let routed = with(1, |bridge| bridge.mode_ipv4 = GatewayMode::Routed);
    let mut second = endpoint(1, 2);
    (second.default_ipv4, second.ipv6) = (false, None);
    assert_eq!(
        of(&routed, second),
        [
            "open4 172.30.1.2 . 6 . 80",
            "open4 172.30.1.2 . 17 . 54",
            "open4 172.30.1.2 . 17 . 5353",
            "open4 172.30.1.2 . 132 . 5353",
        ]
    );
    let mut internal = network(1);
    internal.internal = true;
    assert!(of(&internal, endpoint(1, 2)).is_empty());
}

#[test]
fn each_part_has_its_set() {
    for (index, part) in Part::ALL.iter().enumerate() {
        let same = Part::ALL
            .iter()
            .filter(|other| other.set().name == part.set().name);
        assert_eq!(same.count(), 1, "{part:?}");
        assert_eq!(*part as usize, index);
    }
}

/// One drop for each family that was switched on for containers, and an exception from both.
#[test]
fn what_is_not_forwarded_is_a_rule_for_each_family() {
    let count = |drop_ipv4, drop_ipv6| {
        let between = Vec::new();
        let transit = Transit {
            drop_ipv4,
            drop_ipv6,
            between,
        };
        rules(&transit, FilterOptions::default()).len()
    };
    let none = count(false, false);
    assert_eq!(
        none,
        rules(&Transit::default(), FilterOptions::default()).len()
    );
    assert_eq!(count(true, false), none + 2);
    assert_eq!(count(false, true), none + 2);
    assert_eq!(count(true, true), none + 3);
}
