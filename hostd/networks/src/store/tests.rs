use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use keelson_model::error::ErrorKind;
use keelson_model::spec::ConnectionSpec;
use tempfile::TempDir;

use super::*;
use crate::settings::DefaultBridge;
use crate::types::{Addressing, AskedSubnet, Endpoint, NewNetwork};

mod members;
mod model;

fn open(base: &Path) -> Store {
    Store::open(NetworkOptions::below(base), &[]).unwrap()
}

struct Fixture {
    base: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let store = open(base.path());
        Self { base, store }
    }

    /// Simulates that the engine is killed and started.
    fn crash(&mut self) {
        self.store = open(self.base.path());
    }

    fn make(&self, new: NewNetwork) -> Arc<Network> {
        let made = self.store.begin(new, &[]).unwrap();
        self.store.publish(&made.network.id);
        self.store.find(&made.network.id).unwrap()
    }

    fn refusal(&self, new: NewNetwork) -> NetworkError {
        self.store.begin(new, &[]).unwrap_err()
    }
}

fn named(name: &str) -> NewNetwork {
    NewNetwork {
        name: name.to_owned(),
        ..NewNetwork::default()
    }
}

fn with_subnets(name: &str, subnets: &[&str]) -> NewNetwork {
    let subnets = subnets.iter().map(|subnet| AskedSubnet {
        subnet: (*subnet).to_owned(),
        ..AskedSubnet::default()
    });
    NewNetwork {
        ipv6: Some(true),
        addressing: Addressing {
            subnets: subnets.collect(),
            ..Addressing::default()
        },
        ..named(name)
    }
}

fn with_option(name: &str, driver: &str, option: (&str, &str)) -> NewNetwork {
    NewNetwork {
        driver: driver.to_owned(),
        options: [(option.0.to_owned(), option.1.to_owned())].into(),
        ..named(name)
    }
}

fn to(network: &str) -> ConnectionSpec {
    ConnectionSpec {
        network: network.to_owned(),
        ..ConnectionSpec::default()
    }
}

fn at(network: &str, address: &str) -> ConnectionSpec {
    let (mut ipv4, mut ipv6) = (None, None);
    match address.parse().unwrap() {
        IpAddr::V4(address) => ipv4 = Some(address),
        IpAddr::V6(address) => ipv6 = Some(address),
    }
    ConnectionSpec {
        ipv4,
        ipv6,
        ..to(network)
    }
}

fn address(end: &Endpoint) -> String {
    end.ipv4.unwrap().to_string()
}

fn refused(result: Result<Vec<Endpoint>, NetworkError>) -> (String, ErrorKind) {
    let error = result.unwrap_err();
    (error.to_string(), error.kind())
}

#[test]
fn a_network_lives_until_it_is_removed() {
    let mut fixture = Fixture::new();
    let mut events = fixture.store.subscribe();
    let mut new = with_subnets("front", &["10.9.0.0/24"]);
    new.labels.insert("a".to_owned(), "b".to_owned());
    let made = fixture.make(new);
    assert_eq!(
        made.bridge().unwrap().link,
        format!("br-{}", &made.id[..12])
    );
    assert_eq!(
        made.subnets[0].gateway,
        Some(Ipv4Addr::new(10, 9, 0, 1).into())
    );
    assert_eq!(made.asked.subnets[0].gateway, "", "it was not asked for");
    fixture.crash();
    assert_eq!(fixture.store.find("front").unwrap(), made);
    let error = fixture.refusal(named("front"));
    assert_eq!(error.to_string(), "network with name front already exists");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let removed = fixture.store.begin_removal("front").unwrap();
    assert!(
        fixture.store.find("front").is_err(),
        "nobody finds it any more"
    );
    assert!(matches!(
        fixture.refusal(named("front")),
        NetworkError::Exists(_)
    ));
    fixture.store.finish_removal(&removed.id).unwrap();
    fixture.crash();
    let error = fixture.store.find("front").unwrap_err();
    assert_eq!(error.to_string(), "network front not found");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let event = events.try_recv().unwrap();
    assert_eq!((event.action, &event.id), (NetworkAction::Create, &made.id));
    assert_eq!((&*event.name, event.driver), ("front", "bridge"));
}

#[test]
fn an_interrupted_change_leaves_the_old_or_the_new_state() {
    let mut fixture = Fixture::new();
    let made = fixture.store.begin(named("front"), &[]).unwrap();
    assert!(fixture.store.find("front").is_err());
    assert!(matches!(
        fixture.refusal(named("front")),
        NetworkError::Exists(_)
    ));
    fixture.store.abandon(&made.network.id);
    let again = fixture.store.begin(named("front"), &[]).unwrap();
    // The engine is killed before the network is visible. Its document exists, so the kernel's part
    // is created again.
    fixture.crash();
    assert_eq!(fixture.store.find("front").unwrap(), again.network);
    fixture.store.begin_removal("front").unwrap();
    fixture.crash();
    fixture.store.find("front").unwrap();
    let left: Vec<_> = fs::read_dir(fixture.base.path().join("networks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        left.len(),
        3,
        "the trash, the default bridge and front: {left:?}"
    );
}

#[test]
fn every_engine_has_three_networks() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let names: Vec<_> = store.list().iter().map(|one| one.name.clone()).collect();
    assert_eq!(names, ["bridge", "host", "none"]);
    let bridge = store.find("bridge").unwrap();
    assert_eq!(bridge.bridge().unwrap().link, "docker0");
    assert_eq!(bridge.subnets[0].prefix.to_string(), "172.17.0.0/16");
    assert!(!bridge.ipv6 && bridge.predefined);
    // The identifiers that the first releases had.
    assert_eq!(
        store.find("host").unwrap().id,
        hex::encode(<sha2::Sha256 as sha2::Digest>::digest(
            "network host of engine"
        ))
    );
    for name in ["bridge", "host", "none"] {
        let error = store.begin_removal(name).unwrap_err();
        let words = format!("{name} is a pre-defined network and cannot be removed");
        assert_eq!(
            (error.to_string(), error.kind()),
            (words, ErrorKind::Forbidden)
        );
        let error = fixture.refusal(named(name));
        let words = format!("operation is not permitted on predefined {name} network");
        assert_eq!(
            (error.to_string(), error.kind()),
            (words, ErrorKind::Forbidden)
        );
    }
    assert!(store.unused().is_empty());
}

#[test]
fn the_default_bridge_keeps_its_subnet() {
    let base = tempfile::tempdir().unwrap();
    let route = |link: &str, prefix: &str| HostRoute {
        link: link.to_owned(),
        prefix: prefix.parse().unwrap(),
    };
    let subnet = |store: &Store| store.find("bridge").unwrap().subnets[0].prefix.to_string();
    let open = |default: Option<DefaultBridge>, routes: &[HostRoute]| {
        let options = NetworkOptions {
            default_bridge: default,
            ..NetworkOptions::below(base.path())
        };
        Store::open(options, routes).unwrap()
    };
    let usual = || Some(DefaultBridge::default());
    let store = open(usual(), &[route("eth0", "172.17.0.0/16")]);
    assert_eq!(subnet(&store), "172.18.0.0/16");
    // Its own route is no reason for another subnet, and neither is a subnet that became free.
    let own = [route("docker0", "172.18.0.0/16")];
    assert_eq!(subnet(&open(usual(), &own)), "172.18.0.0/16");
    let elsewhere = [route("eth0", "172.18.3.0/24")];
    assert_eq!(subnet(&open(usual(), &elsewhere)), "172.17.0.0/16");
    let asked = || {
        Some(DefaultBridge {
            address: Some("10.7.0.9/24".parse().unwrap()),
            ipv6: true,
            ..DefaultBridge::default()
        })
    };
    let store = open(asked(), &[]);
    assert_eq!(subnet(&store), "10.7.0.0/24");
    let bridge = store.find("bridge").unwrap();
    assert_eq!(
        bridge.subnets[0].gateway,
        Some(Ipv4Addr::new(10, 7, 0, 9).into())
    );
    assert!(bridge.ipv6 && bridge.subnets[1].prefix.address.is_ipv6());
    let given = store.reserve("c", "web", &[to("bridge")]).unwrap();
    assert_eq!(address(&given[0]), "10.7.0.1/24");
    // Containers are in it, so it does not change, whatever the options are.
    let store = open(usual(), &[]);
    assert_eq!(subnet(&store), "10.7.0.0/24");
    let store = open(None, &[]);
    assert_eq!(store.endpoints_of("c"), given);
    store.release_all("c");
    let store = open(None, &[]);
    assert!(store.find("bridge").is_err());
    let error = store.begin(named("bridge"), &[]).unwrap_err();
    assert!(matches!(error, NetworkError::Predefined(_)));
}

/// The engine works even on a host that uses all private networks.
#[test]
fn an_engine_opens_without_a_free_subnet() {
    let base = tempfile::tempdir().unwrap();
    let everything = ["172.16.0.0/12", "192.168.0.0/16"].map(|prefix| HostRoute {
        link: "eth0".to_owned(),
        prefix: prefix.parse().unwrap(),
    });
    let store = Store::open(NetworkOptions::below(base.path()), &everything).unwrap();
    assert!(store.find("bridge").is_err());
    let error = store.begin(named("front"), &everything).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let words = "all predefined address pools have been fully subnetted";
    assert!(error.to_string().starts_with(words), "{error}");
    store
        .begin(with_subnets("asked", &["10.9.0.0/24"]), &everything)
        .unwrap();
    // An existing network keeps its subnet.
    let store = open(base.path());
    let subnet = store.find("bridge").unwrap().subnets.clone();
    let store = Store::open(NetworkOptions::below(base.path()), &everything).unwrap();
    assert_eq!(store.find("bridge").unwrap().subnets, subnet);
}

#[test]
fn networks_are_found_in_docker_s_order() {
    let fixture = Fixture::new();
    let first = fixture.make(named("first"));
    let store = &fixture.store;
    // A network named like another one's identifier, or like the beginning of it.
    let prefix = fixture.make(named(&first.id[..6]));
    fixture.make(named(&first.id));
    assert_eq!(store.find(&first.id).unwrap().id, first.id);
    assert_eq!(store.find(&first.id[..6]).unwrap().id, prefix.id);
    assert_eq!(store.find(&first.id[..12]).unwrap().id, first.id);
    assert!(store.find("").is_err());
    let mut made = vec![first.id.clone()];
    let term = loop {
        let next = fixture.make(named(&format!("n{}", made.len())));
        if made.iter().any(|id| id[..1] == next.id[..1]) {
            break next.id[..1].to_owned();
        }
        made.push(next.id.clone());
    };
    let error = store.find(&term).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let words = format!("network {term} is ambiguous (");
    assert!(error.to_string().starts_with(&words), "{error}");
    assert!(
        error
            .to_string()
            .ends_with(" matches found based on ID prefix)")
    );
}

#[test]
fn wrong_requests_change_nothing() {
    let fixture = Fixture::new();
    let other = fixture.make(with_option(
        "taken",
        "",
        ("com.docker.network.bridge.name", "lan0"),
    ));
    fixture.make(with_option("mac", "macvlan", ("parent", "eth0")));
    fixture.make(with_option("ip", "ipvlan", ("parent", "eth1")));
    let mut pass = with_option("p", "macvlan", ("parent", "eth0"));
    pass.options
        .insert("macvlan_mode".to_owned(), "passthru".to_owned());
    let before = fixture.store.list();
    let cases = [
        (
            named(""),
            "invalid name: name is empty",
            ErrorKind::InvalidInput,
        ),
        (
            named("  "),
            "invalid name: name is empty",
            ErrorKind::InvalidInput,
        ),
        (
            named("a\nb"),
            "invalid name \"a\\nb\": use at most",
            ErrorKind::InvalidInput,
        ),
        (
            named(&"x".repeat(256)),
            "invalid name \"xxx",
            ErrorKind::InvalidInput,
        ),
        (
            named("default"),
            "operation is not permitted on predefined default network",
            ErrorKind::Forbidden,
        ),
        (
            named("container:x"),
            "operation is not permitted on predefined container:x",
            ErrorKind::Forbidden,
        ),
        (
            with_option("a", "overlay", ("a", "b")),
            "This node is not a swarm manager.",
            ErrorKind::Forbidden,
        ),
        (
            with_option("a", "weave", ("a", "b")),
            "plugin \"weave\" not found",
            ErrorKind::NotFound,
        ),
        (
            with_option("a", "", ("com.docker.network.bridge.name", "lan0")),
            "cannot create network ",
            ErrorKind::Forbidden,
        ),
        (
            with_option("a", "", ("com.docker.network.driver.mtu", "x")),
            "failed to parse com.docker.network.driver.mtu value: x (invalid MTU number",
            ErrorKind::InvalidInput,
        ),
        (
            NewNetwork {
                ipv6: Some(true),
                ..with_option("a", "", ("com.docker.network.driver.mtu", "1000"))
            },
            "invalid MTU number: 1000: IPv6 needs at least 1280",
            ErrorKind::InvalidInput,
        ),
        (
            NewNetwork {
                ipv4: Some(false),
                ..named("a")
            },
            "IPv4 or IPv6 must be enabled",
            ErrorKind::InvalidInput,
        ),
        (
            with_subnets("a", &["10.0.0.0/24", "10.1.0.0/24"]),
            "bridge driver doesn't support multiple subnets",
            ErrorKind::Forbidden,
        ),
        (
            with_subnets("a", &["172.17.3.0/24"]),
            "invalid pool request: Pool overlaps with other one on this address space",
            ErrorKind::Forbidden,
        ),
        (
            with_subnets("a", &["10.0.0.1/24"]),
            "invalid network config:\ninvalid subnet 10.0.0.1/24: it should be 10.0.0.0/24",
            ErrorKind::InvalidInput,
        ),
        (
            pass,
            "cannot use mode passthru, macvlan network ",
            ErrorKind::InvalidInput,
        ),
        (
            with_option("a", "ipvlan", ("parent", "eth1")),
            "network ",
            ErrorKind::InvalidInput,
        ),
        (
            NewNetwork {
                labels: [("a".to_owned(), "x".repeat(2 << 20))].into(),
                ..named("a")
            },
            "Labels have 2097153 bytes",
            ErrorKind::InvalidInput,
        ),
    ];
    for (new, words, kind) in cases {
        let error = fixture.refusal(new);
        assert!(error.to_string().starts_with(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let same = with_option("a", "", ("com.docker.network.bridge.name", "lan0"));
    let error = fixture.refusal(same).to_string();
    let words = format!(
        "(lan0): conflicts with network {} (lan0): networks have same bridge name",
        other.id
    );
    assert!(error.ends_with(&words), "{error}");
    assert_eq!(fixture.store.list(), before);
    // Several macvlan networks share a link.
    fixture.make(with_option("mac2", "macvlan", ("parent", "eth0")));
}

/// IPv6 has three values: an absent one takes the default, and an explicit one has priority.
#[test]
fn options_have_defaults() {
    let base = tempfile::tempdir().unwrap();
    let defaults = [
        ("com.docker.network.enable_ipv6", "true"),
        ("com.docker.network.driver.mtu", "1400"),
    ];
    let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = NetworkOptions {
        default_options: [("bridge".to_owned(), defaults.into())].into(),
        ..NetworkOptions::below(base.path())
    };
    let store = Store::open(options, &[]).unwrap();
    let made = |new: NewNetwork| store.begin(new, &[]).unwrap().network;
    let plain = made(named("plain"));
    assert!(plain.ipv6 && plain.ipv4);
    assert_eq!(plain.bridge().unwrap().mtu, Some(1400));
    let mut said = with_option("said", "bridge", ("com.docker.network.driver.mtu", "1300"));
    said.ipv6 = Some(false);
    let said = made(said);
    assert!(!said.ipv6);
    assert_eq!(said.bridge().unwrap().mtu, Some(1300));
    assert!(!said.options.contains_key("com.docker.network.enable_ipv6"));
    let other = made(with_option("other", "macvlan", ("parent", "eth0")));
    assert!(!other.ipv6);
}

#[test]
fn unreadable_networks_are_kept_and_listed() {
    let mut fixture = Fixture::new();
    let front = fixture.make(with_subnets("front", &["10.9.0.0/24"]));
    let path = fixture
        .base
        .path()
        .join("networks")
        .join(&front.id)
        .join(NETWORK);
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen(
        "\"version\":1,\"readable_from\":1",
        "\"version\":9,\"readable_from\":9",
        1,
    );
    assert_ne!(text, newer);
    fs::write(&path, &newer).unwrap();
    fixture.crash();
    let found = fixture.store.find("front").unwrap();
    assert!(found.unreadable.as_deref().unwrap().contains("version 9"));
    assert_eq!(
        found.subnets[0].prefix, front.subnets[0].prefix,
        "nobody else gets them"
    );
    let overlap = fixture.refusal(with_subnets("a", &["10.9.0.0/28"]));
    assert!(overlap.to_string().contains("Pool overlaps"), "{overlap}");
    let (error, kind) = refused(fixture.store.reserve("c", "web", &[to("front")]));
    assert!(
        error.starts_with("network front can't be used: "),
        "{error}"
    );
    assert_eq!(kind, ErrorKind::Internal);
    assert!(fixture.store.unused().is_empty());
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    // It is as before once it can be read again.
    fs::write(&path, &text).unwrap();
    fixture.crash();
    assert_eq!(fixture.store.find("front").unwrap(), front);
    fs::write(&path, "{").unwrap();
    fixture.crash();
    assert_eq!(fixture.store.find(&front.id).unwrap().name, front.id);
    fixture.store.begin_removal(&front.id).unwrap();
    fixture.store.finish_removal(&front.id).unwrap();
    assert!(!path.exists());
}

#[test]
fn an_unreadable_default_bridge_is_not_changed() {
    let mut fixture = Fixture::new();
    let bridge = fixture.store.find("bridge").unwrap();
    let path = fixture
        .base
        .path()
        .join("networks")
        .join(&bridge.id)
        .join(NETWORK);
    let newer = r#"{"version":9,"readable_from":9}"#;
    fs::write(&path, newer).unwrap();
    fixture.crash();
    let found = fixture.store.find("bridge").unwrap();
    assert_eq!(
        (&found.unreadable, &found.subnets),
        (&None, &bridge.subnets)
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}
