use std::net::IpAddr;

use super::bridge::DEFAULT_BRIDGE;
use super::*;
use crate::types::{Bridge, IpvlanFlag, MacvlanMode, Parent};

const ID: &str = "0123456789abcdef";

fn map(options: &[(&str, &str)]) -> BTreeMap<String, String> {
    let options = options.iter();
    options
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn read_all(
    driver: &str,
    internal: bool,
    options: &[(&str, &str)],
) -> Result<Understood, OptionError> {
    read(Asked {
        id: ID,
        driver,
        options: &map(options),
        internal,
        of_engine: false,
    })
}

fn bridge(options: &[(&str, &str)]) -> Bridge {
    let understood = read_all("bridge", true, options).unwrap();
    assert_eq!(understood.problems, []);
    match understood.driver {
        Driver::Bridge(bridge) => bridge,
        other => panic!("{other:?}"),
    }
}

/// The problem of one option.
fn problem(driver: &str, name: &str, value: &str) -> String {
    let problems = read_all(driver, false, &[(name, value)]).unwrap().problems;
    assert_eq!(problems.len(), 1, "{name} {value}: {problems:?}");
    problems[0].to_string()
}

/// A network of each driver can be created, or exists once on every host.
#[test]
fn all_drivers_are_known_by_name() {
    for name in Driver::NAMES {
        match read_all(name, false, &[]) {
            Ok(read) => assert_eq!(read.driver.as_str(), name),
            Err(OptionError::OnlyOne(only)) => assert_eq!(only, name),
            Err(error) => panic!("{name}: {error}"),
        }
    }
    for only in [Driver::Host, Driver::Nothing] {
        assert!(Driver::NAMES.contains(&only.as_str()));
    }
    assert!(Driver::NAMES.is_sorted());
}

#[test]
fn a_bridge_without_options() {
    assert_eq!(bridge(&[]), Bridge::new("br-0123456789ab"));
    assert_eq!(
        bridge(&[("com.docker.network.bridge.name", "")]).link,
        "br-0123456789ab"
    );
    // Unknown options are ignored.
    assert_eq!(bridge(&[("foo", "bar")]), Bridge::new("br-0123456789ab"));
    let default = read_all("", false, &[]).unwrap();
    assert_eq!(
        default.driver,
        Driver::Bridge(Bridge::new("br-0123456789ab"))
    );
    assert!(!default.internal);
}

#[test]
fn every_option_of_a_bridge() {
    let found = bridge(&[
        ("com.docker.network.bridge.name", "lan0"),
        ("com.docker.network.bridge.enable_icc", "False"),
        ("com.docker.network.bridge.enable_ip_masquerade", "0"),
        ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
        ("com.docker.network.bridge.inhibit_ipv4", "true"),
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
        ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
        (
            "com.docker.network.bridge.trusted_host_interfaces",
            "eth0::vxlan.1:",
        ),
        ("com.docker.network.driver.mtu", "9000"),
        ("com.docker.network.container_iface_prefix", "lan"),
        ("com.docker.network.host_ipv4", "192.0.2.1"),
        ("com.docker.network.host_ipv6", "2001:db8::1"),
    ]);
    let expected = Bridge {
        link: "lan0".to_owned(),
        inter_container: false,
        masquerade: false,
        source_ipv4: Some("192.0.2.1".parse().unwrap()),
        source_ipv6: Some("2001:db8::1".parse().unwrap()),
        default_binding: Some("127.0.0.1".parse::<IpAddr>().unwrap()),
        mode_ipv4: GatewayMode::Routed,
        mode_ipv6: GatewayMode::Isolated,
        mtu: Some(9000),
        interface_prefix: "lan".to_owned(),
        inhibit_ipv4: true,
        trusted: vec!["eth0".to_owned(), "vxlan.1".to_owned()],
    };
    assert_eq!(found, expected);
    assert_eq!(bridge(&[("com.docker.network.driver.mtu", "0")]).mtu, None);
}

#[test]
fn wrong_values_name_option_value_and_remedy() {
    for (name, value, remedy) in [
        (
            "com.docker.network.bridge.name",
            "a/b",
            "a link's name has 1 to 15 letters",
        ),
        (
            "com.docker.network.bridge.name",
            "sixteen-bytes-it",
            "a link's name has 1 to 15",
        ),
        (
            "com.docker.network.bridge.name",
            "lo",
            "it is the loopback interface's",
        ),
        (
            "com.docker.network.bridge.enable_icc",
            "yes",
            "use true or false",
        ),
        (
            "com.docker.network.bridge.enable_ip_masquerade",
            "",
            "use true or false",
        ),
        (
            "com.docker.network.bridge.host_binding_ipv4",
            "x",
            "nil ip: use an address",
        ),
        (
            "com.docker.network.bridge.gateway_mode_ipv4",
            "open",
            "unknown gateway mode open: use nat",
        ),
        (
            "com.docker.network.bridge.trusted_host_interfaces",
            "a b",
            "a link's name",
        ),
        (
            "com.docker.network.driver.mtu",
            "-1",
            "invalid MTU number: use 68 to 65535",
        ),
        ("com.docker.network.driver.mtu", "67", "invalid MTU number"),
        (
            "com.docker.network.container_iface_prefix",
            "thirteen-long",
            "a number follows it: use at most 12 letters",
        ),
        ("com.docker.network.host_ipv4", "2001:db8::1", "nil ip"),
        ("com.docker.network.host_ipv6", "192.0.2.1", "nil ip"),
    ] {
        let found = problem("bridge", name, value);
        let begin = format!("failed to parse {name} value: {value} ({remedy}");
        assert!(found.starts_with(&begin), "{found} {begin}");
    }
    assert_eq!(
        problem(
            "bridge",
            "com.docker.network.bridge.gateway_mode_ipv6",
            "isolated"
        ),
        "gateway mode 'isolated' can only be used for an internal network"
    );
    let error = problem("bridge", DEFAULT_BRIDGE, "true");
    assert!(error.contains("only the network bridge"), "{error}");
    let two = [
        ("com.docker.network.bridge.enable_icc", "x"),
        ("com.docker.network.driver.mtu", "y"),
    ];
    let both = read_all("bridge", false, &two).unwrap();
    assert_eq!(both.problems.len(), 2);
    // A wrong value counts as not given.
    assert_eq!(both.driver, Driver::Bridge(Bridge::new("br-0123456789ab")));
}

#[test]
fn networks_on_a_link_of_the_host() {
    let found = |driver: &str, options: &[(&str, &str)]| {
        let found = read_all(driver, false, options).unwrap();
        assert_eq!(found.problems, []);
        (found.driver, found.internal)
    };
    let (driver, internal) = found(
        "macvlan",
        &[("parent", "eth0.10"), ("macvlan_mode", "vepa")],
    );
    let Driver::Macvlan(parent) = driver else {
        panic!("{driver:?}");
    };
    assert!(!internal);
    assert_eq!(parent.mode, MacvlanMode::Vepa);
    let link = parent.link.unwrap();
    assert_eq!(
        (link.name.as_str(), link.vlan),
        ("eth0.10", Some(("eth0".to_owned(), 10)))
    );
    for (name, vlan) in [
        ("eth0", None),
        ("eth0.0", None),
        ("eth0.4095", None),
        ("eth0.x", None),
        ("a.b.7", Some(("a.b".to_owned(), 7))),
    ] {
        let (driver, _) = found("ipvlan", &[("parent", name)]);
        let Driver::Ipvlan(parent) = driver else {
            panic!("{driver:?}");
        };
        assert_eq!(parent.link.unwrap().vlan, vlan, "{name}");
    }
    let (driver, internal) = found(
        "ipvlan",
        &[("ipvlan_mode", "l3s"), ("ipvlan_flag", "private")],
    );
    assert!(internal, "it leads nowhere");
    assert!(routes_by_device(&driver));
    let expected = Parent {
        link: None,
        mode: IpvlanMode::L3S(IpvlanFlag::Private),
        mtu: None,
    };
    assert_eq!(driver, Driver::Ipvlan(expected));
    for (driver, name, value, words) in [
        (
            "macvlan",
            "macvlan_mode",
            "x",
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            "ipvlan",
            "ipvlan_mode",
            "l4",
            "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
        ),
        (
            "ipvlan",
            "ipvlan_flag",
            "x",
            "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
        ),
        (
            "macvlan",
            "parent",
            "lo",
            "loopback interface is not a valid macvlan parent link",
        ),
        (
            "ipvlan",
            "parent",
            "a b",
            "failed to parse parent value: a b",
        ),
    ] {
        let found = problem(driver, name, value);
        assert!(found.starts_with(words), "{found}");
    }
}

#[test]
fn other_drivers_are_refused() {
    for (driver, words) in [
        ("overlay", "This node is not a swarm manager."),
        ("weave", "plugin \"weave\" not found"),
        ("host", "only one instance of \"host\" network is allowed"),
        ("null", "only one instance of \"null\" network is allowed"),
    ] {
        let error = read_all(driver, false, &[]).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}

#[test]
fn families_have_three_values() {
    let options = map(&[(ENABLE_IPV4, "false"), (ENABLE_IPV6, "true")]);
    let none = BTreeMap::new();
    assert_eq!(families(None, None, &none), Ok((true, false)));
    assert_eq!(families(None, None, &options), Ok((false, true)));
    assert_eq!(
        families(Some(true), Some(false), &options),
        Ok((true, false))
    );
    let wrong = map(&[(ENABLE_IPV6, "x")]);
    let error = families(None, None, &wrong).unwrap_err().to_string();
    assert!(error.starts_with(&format!("driver-opt \"{ENABLE_IPV6}\" is not a valid bool")));
    assert_eq!(families(None, Some(true), &wrong), Ok((true, true)));
}

#[test]
fn gateways_are_only_chosen_where_allowed() {
    let driver = |driver: &str, internal, options: &[(&str, &str)]| {
        read_all(driver, internal, options).unwrap().driver
    };
    let bridge = driver("bridge", false, &[]);
    assert!(wants_gateway(&bridge, false, false) && wants_gateway(&bridge, true, true));
    let isolated = driver(
        "bridge",
        true,
        &[("com.docker.network.bridge.gateway_mode_ipv6", "isolated")],
    );
    assert!(wants_gateway(&isolated, true, false) && !wants_gateway(&isolated, true, true));
    let inhibited = driver(
        "bridge",
        true,
        &[("com.docker.network.bridge.inhibit_ipv4", "1")],
    );
    assert!(!wants_gateway(&inhibited, true, false) && wants_gateway(&inhibited, false, false));
    for name in ["macvlan", "ipvlan"] {
        let driver = driver(name, false, &[("parent", "eth0")]);
        assert!(!wants_gateway(&driver, false, false));
        assert!(!routes_by_device(&driver));
    }
}
