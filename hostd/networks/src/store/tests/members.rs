//! The connections of containers.

use keelson_model::spec::{Port, Protocol, PublishedPort};

use super::*;
use crate::types::Binding;

#[test]
fn a_container_gets_what_it_needs() {
    let fixture = Fixture::new();
    fixture.make(with_subnets("front", &["10.9.0.0/24", "fd00:9::/64"]));
    fixture.make(named("back"));
    let store = &fixture.store;
    let given = store
        .reserve("c1", "web", &[to("front"), to("back")])
        .unwrap();
    let front = &given[0];
    assert_eq!(address(front), "10.9.0.2/24");
    assert_eq!(front.ipv6.unwrap().to_string(), "fd00:9::2/64");
    assert_eq!(front.gateway_ipv4, Some(Ipv4Addr::new(10, 9, 0, 1)));
    assert_eq!(front.gateway_ipv6, "fd00:9::1".parse().ok());
    assert_eq!((&*front.interface, &*given[1].interface), ("eth0", "eth1"));
    assert!(
        front.default_ipv4 && front.default_ipv6,
        "it has both families"
    );
    assert!(!given[1].default_ipv4 && !given[1].default_ipv6);
    for end in &given {
        assert_eq!(end.id.len(), 64);
        assert_eq!((end.host_link.len(), &end.host_link[..4]), (11, "veth"));
        assert_eq!(
            end.mac.unwrap()[0] & 0x03,
            0x02,
            "locally administered, of one interface"
        );
        assert_eq!(
            end.asked.mac, None,
            "what was chosen is never what was asked for"
        );
    }
    assert_ne!(given[0].host_link, given[1].host_link);
    assert_ne!(given[0].mac, given[1].mac);
    assert_eq!(store.endpoints_of("c1"), given);
    assert_eq!(store.endpoint("c1", "front").unwrap(), given[0]);
    let inside = store.endpoints_in(&front.network);
    assert_eq!(inside.len(), 1);
    assert_eq!((&*inside[0].container, &*inside[0].name), ("c1", "web"));

    let (error, kind) = refused(store.reserve("c1", "web", &[to("front")]));
    assert_eq!(
        error,
        "endpoint with name web already exists in network front"
    );
    assert_eq!(kind, ErrorKind::Forbidden);
    let (error, _) = refused(store.reserve("c2", "db", &[to("back"), to("nowhere")]));
    assert_eq!(error, "network nowhere not found");
    let id = store.find("back").unwrap().id.clone();
    let (error, _) = refused(store.reserve("c2", "db", &[to("back"), to(&id)]));
    assert_eq!(
        error,
        "endpoint with name db already exists in network back"
    );
    assert!(store.endpoints_of("c2").is_empty());
    let error = store.endpoint("c2", "back").unwrap_err();
    assert_eq!(
        error.to_string(),
        "container c2 is not connected to network back"
    );
    assert_eq!(error.kind(), ErrorKind::Internal);

    let error = store.begin_removal("front").unwrap_err();
    let words = format!(
        "error while removing network: network front has active endpoints (name:\"web\" id:\"{}\")",
        &front.id[..12]
    );
    assert_eq!(
        (error.to_string(), error.kind()),
        (words, ErrorKind::Forbidden)
    );
    store.rename("c1", "www");
    assert_eq!(store.endpoints_in(&front.network)[0].name, "www");
    assert_eq!(store.release("c1", &front.id).len(), 1);
    assert_eq!(store.release("c1", &front.id).len(), 1, "again is no error");
    store.begin_removal("front").unwrap();
}

/// A network is held from the reservation to the end of the run, also across a kill of the engine.
#[test]
fn a_network_is_held_while_a_container_is_in_it() {
    let mut fixture = Fixture::new();
    fixture.make(named("front"));
    let held = |store: &Store| {
        let unused = store.unused().iter().any(|network| network.name == "front");
        match store.begin_removal("front") {
            Ok(network) => {
                store.give_up_removal(&network.id);
                assert!(unused);
            }
            Err(error) => assert!(
                !unused && matches!(error, NetworkError::InUse { .. }),
                "{error}"
            ),
        }
        !unused
    };
    assert!(!held(&fixture.store));
    fixture.store.reserve("c1", "web", &[to("front")]).unwrap();
    let end = fixture.store.reserve("c2", "db", &[to("front")]).unwrap();
    fixture.store.release("c2", &end[0].id);
    assert!(held(&fixture.store), "one container has left");
    fixture.crash();
    assert!(held(&fixture.store), "the next engine holds it again");
    assert!(fixture.store.withdraw("c1").is_some());
    assert!(
        !held(&fixture.store),
        "its addresses are reserved, but it has left"
    );
    fixture.store.finish("c1");
    assert!(!held(&fixture.store));
}

#[test]
fn static_addresses() {
    let fixture = Fixture::new();
    let mut new = with_subnets("front", &["10.9.0.0/24"]);
    new.addressing.subnets[0].range = "10.9.0.128/30".to_owned();
    new.addressing.subnets[0].gateway = "10.9.0.1".to_owned();
    new.ipv6 = Some(false);
    fixture.make(new);
    fixture.make(named("any"));
    let store = &fixture.store;
    let given = store
        .reserve("c1", "web", &[at("front", "10.9.0.7")])
        .unwrap();
    assert_eq!(
        address(&given[0]),
        "10.9.0.7/24",
        "outside the range is fine"
    );
    for (spec, words, kind) in [
        (
            at("front", "10.9.0.7"),
            "Address already in use: 10.9.0.7 is the address of container web",
            ErrorKind::Forbidden,
        ),
        (
            at("front", "10.9.0.1"),
            "Address already in use: 10.9.0.1 is the gateway's",
            ErrorKind::Forbidden,
        ),
        (
            at("front", "10.8.0.1"),
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.8.0.1",
            ErrorKind::InvalidInput,
        ),
        (
            at("front", "fd00::1"),
            "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets",
            ErrorKind::InvalidInput,
        ),
        (
            at("any", "172.18.0.9"),
            "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets",
            ErrorKind::InvalidInput,
        ),
        (
            at("bridge", "172.17.0.9"),
            "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only",
            ErrorKind::InvalidInput,
        ),
        (
            ConnectionSpec {
                aliases: vec!["a".to_owned()],
                ..to("bridge")
            },
            "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks",
            ErrorKind::InvalidInput,
        ),
    ] {
        let both = [to("none"), spec];
        assert_eq!(
            refused(store.reserve("c2", "db", &both)),
            (words.to_owned(), kind)
        );
        assert!(store.endpoints_of("c2").is_empty());
    }
    // The address of a container that does not run. Others get it only when there is no other.
    store.configure("c3", &[at("front", "10.9.0.129")]);
    assert_eq!(
        address(&store.reserve("d1", "d1", &[to("front")]).unwrap()[0]),
        "10.9.0.128/24"
    );
    assert_eq!(
        address(&store.reserve("d2", "d2", &[to("front")]).unwrap()[0]),
        "10.9.0.130/24"
    );
    store.release_all("d1");
    store.release_all("d2");
    let given = store
        .reserve("c3", "c3", &[at("front", "10.9.0.129")])
        .unwrap();
    assert_eq!(address(&given[0]), "10.9.0.129/24");
    store.release_all("c3");
    let all: Vec<_> = ["d1", "d2", "d3"]
        .iter()
        .map(|id| address(&store.reserve(id, id, &[to("front")]).unwrap()[0]))
        .collect();
    assert_eq!(all, ["10.9.0.128/24", "10.9.0.130/24", "10.9.0.131/24"]);
    store.forget("c3");
    store.release_all("d2");
    assert_eq!(
        address(&store.reserve("d4", "d4", &[to("front")]).unwrap()[0]),
        "10.9.0.129/24"
    );
    let given = store.reserve("d5", "d5", &[to("front")]).unwrap();
    assert_eq!(address(&given[0]), "10.9.0.130/24");
    let (error, kind) = refused(store.reserve("d6", "d6", &[to("front")]));
    let id = &store.find("front").unwrap().id;
    let words =
        format!("no available IPv4 addresses on this network's address pools: front ({id})");
    assert_eq!((error, kind), (words, ErrorKind::Internal));
}

/// A container keeps its address over a restart, and another does not get it at once.
#[test]
fn an_address_is_given_to_its_container_again() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let start = |id: &str| address(&store.reserve(id, id, &[to("bridge")]).unwrap()[0]);
    assert_eq!(start("a"), "172.17.0.2/16");
    store.release_all("a");
    assert_eq!(start("b"), "172.17.0.3/16");
    assert_eq!(start("a"), "172.17.0.2/16");
    store.release_all("a");
    store.forget("a");
    assert_eq!(start("a"), "172.17.0.4/16");
}

#[test]
fn a_new_network_of_the_same_name_is_found_too() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    store.configure("c", &[at("front", "10.9.0.2")]);
    fixture.make(with_subnets("front", &["10.9.0.0/24"]));
    assert_eq!(
        address(&store.reserve("d", "d", &[to("front")]).unwrap()[0]),
        "10.9.0.3/24"
    );
    store.release_all("d");
    let old = store.begin_removal("front").unwrap();
    store.finish_removal(&old.id).unwrap();
    fixture.make(with_subnets("front", &["10.9.0.0/24"]));
    assert_eq!(
        address(&store.reserve("d", "d", &[to("front")]).unwrap()[0]),
        "10.9.0.3/24"
    );
}

#[test]
fn other_drivers() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    fixture.make(with_option("mac", "macvlan", ("parent", "eth0")));
    fixture.make(with_option("l2", "ipvlan", ("parent", "eth1")));
    let mut l3 = with_option("l3", "ipvlan", ("parent", "eth2"));
    l3.options.insert("ipvlan_mode".to_owned(), "l3".to_owned());
    fixture.make(l3);
    let ends = store
        .reserve("c", "c", &[to("mac"), to("l2"), to("l3")])
        .unwrap();
    for end in &ends {
        assert_eq!(
            (&*end.host_link, end.gateway_ipv4),
            ("", None),
            "no gateway is invented"
        );
    }
    let macs: Vec<_> = ends.iter().map(|end| end.mac.is_some()).collect();
    assert_eq!(macs, [true, false, false]);
    let defaults: Vec<_> = ends.iter().map(|end| end.default_ipv4).collect();
    assert_eq!(defaults, [false, false, true], "through the link itself");
    let mac = ConnectionSpec {
        mac: Some([2, 0, 0, 0, 0, 1]),
        ..to("l2")
    };
    let (error, _) = refused(store.reserve("d", "d", std::slice::from_ref(&mac)));
    assert!(error.ends_with("ipvlan interfaces do not support custom mac address assignment"));
    let mac = ConnectionSpec {
        network: "mac".to_owned(),
        ..mac
    };
    let ends = store.reserve("d", "d", std::slice::from_ref(&mac)).unwrap();
    assert_eq!(ends[0].mac, mac.mac);
    let host = store.reserve("h", "h", &[to("host")]).unwrap();
    assert_eq!(
        (&*host[0].interface, host[0].ipv4, host[0].mac),
        ("", None, None)
    );
}

#[test]
fn default_routes_move() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    fixture.make(NewNetwork {
        internal: true,
        ..named("inside")
    });
    fixture.make(named("b"));
    fixture.make(with_subnets("six", &["fd00:6::/64"]));
    let defaults = || -> Vec<(bool, bool)> {
        let ends = store.endpoints_of("c");
        ends.iter()
            .map(|end| (end.default_ipv4, end.default_ipv6))
            .collect()
    };
    store.reserve("c", "c", &[to("inside")]).unwrap();
    assert_eq!(
        defaults(),
        [(false, false)],
        "an internal network leads nowhere"
    );
    let b = store.reserve("c", "c", &[to("b")]).unwrap();
    assert!(b[0].default_ipv4);
    let six = store.reserve("c", "c", &[to("six")]).unwrap();
    assert_eq!(
        defaults(),
        [(false, false), (false, false), (true, true)],
        "both families"
    );
    let first = ConnectionSpec {
        gateway_priority: 1,
        ..to("bridge")
    };
    store.reserve("c", "c", &[first]).unwrap();
    assert_eq!(defaults()[3], (true, false), "each family for itself");
    assert_eq!(defaults()[2], (false, true));
    let left = store.release("c", &six[0].id);
    assert!(left.iter().all(|end| !end.default_ipv6));
    let inside = fixture.store.find("inside").unwrap();
    assert_eq!(
        inside.subnets[0].gateway.map(|gateway| gateway.is_ipv4()),
        Some(true)
    );
}

#[test]
fn ipv6_can_be_dropped() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    fixture.make(with_subnets("six", &["10.6.0.0/24", "fd00:6::/126"]));
    store.reserve("c", "c", &[to("six")]).unwrap();
    store.reserve("d", "d", &[to("six")]).unwrap();
    let (error, _) = refused(store.reserve("e", "e", &[to("six")]));
    assert!(error.starts_with("no available IPv6 addresses"), "{error}");
    let ends = store.drop_ipv6("c").unwrap();
    assert_eq!(
        (ends[0].ipv6, ends[0].gateway_ipv6, ends[0].default_ipv6),
        (None, None, false)
    );
    // The address of the failed connection is free, too.
    let given = store.reserve("e", "e", &[at("six", "10.6.0.4")]).unwrap();
    assert_eq!(given[0].ipv6.unwrap().to_string(), "fd00:6::2/126");
}

#[test]
fn events_of_connections_are_sent_once_they_work() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let mut events = store.subscribe();
    let failed = store.reserve("c", "c", &[to("bridge")]).unwrap();
    store.release("c", &failed[0].id);
    assert!(events.try_recv().is_err(), "it never worked");
    let ends = store.reserve("c", "c", &[to("bridge")]).unwrap();
    store.announce("c", &ends[0].id);
    store.announce("c", &ends[0].id);
    store.release_all("c");
    let event = events.try_recv().unwrap();
    let container = "c".to_owned();
    assert_eq!(event.action, NetworkAction::Connect { container });
    assert_eq!(event.name, "bridge");
    let container = "c".to_owned();
    let event = events.try_recv().unwrap();
    assert_eq!(event.action, NetworkAction::Disconnect { container });
    assert!(events.try_recv().is_err());
}

#[test]
fn what_running_containers_have_survives_the_engine() {
    let mut fixture = Fixture::new();
    let ends = fixture.store.reserve("c", "web", &[to("bridge")]).unwrap();
    let port = Port {
        number: 80,
        protocol: Protocol::Tcp,
    };
    let binding = Binding {
        asked: PublishedPort {
            port,
            host: None,
            host_ports: None,
        },
        port,
        host: "0.0.0.0".parse().unwrap(),
        host_port: 8080,
    };
    fixture
        .store
        .set_bindings("c", "web", vec![binding.clone()])
        .unwrap();
    fixture.crash();
    let found = fixture.store.recovered();
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].container, &*found[0].name), ("c", "web"));
    assert_eq!(found[0].endpoints, ends);
    assert_eq!(found[0].bindings, std::slice::from_ref(&binding));
    assert_eq!(fixture.store.recovered(), []);
    assert_eq!(fixture.store.bindings_of("c"), [binding]);
    let other = fixture.store.reserve("d", "d", &[to("bridge")]).unwrap();
    assert_ne!(other[0].ipv4, ends[0].ipv4);
    // A dead container's connection is released, and the event is sent.
    let mut events = fixture.store.subscribe();
    fixture.store.release_all("c");
    let container = "c".to_owned();
    let event = events.try_recv().unwrap();
    assert_eq!(event.action, NetworkAction::Disconnect { container });
    fixture.crash();
    assert_eq!(fixture.store.recovered().len(), 1);
    assert_eq!(fixture.store.bindings_of("c"), []);
}

#[test]
fn nothing_is_allocated_that_can_not_be_recorded() {
    let fixture = Fixture::new();
    let run = fixture.base.path().join("run");
    fs::remove_dir(&run).unwrap();
    assert!(fixture.store.reserve("c", "c", &[to("bridge")]).is_err());
    assert!(fixture.store.endpoints_of("c").is_empty());
    fs::create_dir(&run).unwrap();
    let bridge = fixture.store.find("bridge").unwrap();
    fixture.store.reserve("d", "d", &[to("bridge")]).unwrap();
    assert_eq!(fixture.store.endpoints_in(&bridge.id).len(), 1);
}
