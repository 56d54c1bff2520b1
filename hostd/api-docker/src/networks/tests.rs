use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use hostd_networks::{Addressing, AskedSubnet, Bridge, Driver, NewNetwork, Subnet};
use keelson_model::error::ErrorKind;
use keelson_model::json::{self as wire, Json};
use serde_json::json;

use super::*;
use crate::query::Query;

fn network() -> Network {
    Network {
        id: "0123456789abcdef".repeat(4),
        name: "front".to_owned(),
        created: "2026-01-02T03:04:05.6Z".parse().unwrap(),
        driver: Driver::Bridge(Bridge::new("br-0123456789ab")),
        internal: false,
        attachable: false,
        ipv4: true,
        ipv6: false,
        subnets: vec![Subnet {
            prefix: "172.18.0.0/16".parse().unwrap(),
            range: None,
            gateway: Some(IpAddr::V4(Ipv4Addr::new(172, 18, 0, 1))),
            auxiliary: BTreeMap::new(),
        }],
        asked: Addressing::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: false,
        unreadable: None,
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_network_in_docker_s_form() {
    assert_eq!(
        show::network(&network(), Default::default()),
        json!({
            "Name": "front",
            "Id": "0123456789abcdef".repeat(4),
            "Created": "2026-01-02T03:04:05.6Z",
            "Scope": "local",
            "Driver": "bridge",
            "EnableIPv4": true,
            "EnableIPv6": false,
            "IPAM": {
                "Driver": "default",
                "Options": null,
                "Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}],
            },
            "Internal": false,
            "Attachable": false,
            "Ingress": false,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": false,
            "Containers": {},
            "Options": {},
            "Labels": {},
        })
    );
}

/// Requested and allocated values are never mixed in a family.
#[test]
fn addresses_are_shown_as_requested() {
    let mut network = network();
    network.asked = Addressing {
        driver: "default".to_owned(),
        options: Some(map(&[("a", "b")])),
        subnets: vec![AskedSubnet {
            subnet: "10.0.0.0/24".to_owned(),
            range: "10.0.0.128/25".to_owned(),
            gateway: String::new(),
            auxiliary: map(&[("printer", "10.0.0.9")]),
        }],
    };
    network.subnets.push(Subnet {
        prefix: "fd00::/64".parse().unwrap(),
        range: None,
        gateway: None,
        auxiliary: BTreeMap::new(),
    });
    let shown = show::network(&network, Default::default());
    assert_eq!(
        shown["IPAM"],
        json!({
            "Driver": "default",
            "Options": {"a": "b"},
            "Config": [
                {
                    "Subnet": "10.0.0.0/24",
                    "IPRange": "10.0.0.128/25",
                    "AuxiliaryAddresses": {"printer": "10.0.0.9"},
                },
                {"Subnet": "fd00::/64"},
            ],
        })
    );
}

#[test]
fn networks_are_filtered() {
    let mut custom = network();
    custom.labels = map(&[("tier", "front")]);
    let builtin = Network {
        name: "bridge".to_owned(),
        predefined: true,
        ..network()
    };
    let fits = |filters: &str, network: &Network, in_use: bool| {
        let query = Query::parse(Some(&format!("filters={filters}"))).unwrap();
        let filters = query.filters(FILTERS).unwrap();
        ListFilters::new(&filters).unwrap().fits(network, || in_use)
    };
    for filters in [
        "{}",
        r#"{"name":["ron"]}"#,
        r#"{"name":["^front$"]}"#,
        r#"{"id":["012345"]}"#,
        r#"{"driver":["macvlan","bridge"]}"#,
        r#"{"scope":["local"]}"#,
        r#"{"type":["custom"]}"#,
        r#"{"label":["tier"]}"#,
        r#"{"label":["tier=front"]}"#,
        r#"{"dangling":["false"]}"#,
    ] {
        assert!(fits(filters, &custom, true), "{filters}");
    }
    for filters in [
        r#"{"name":["back"]}"#,
        r#"{"id":["abc0"]}"#,
        r#"{"driver":["brid"]}"#,
        r#"{"scope":["swarm"]}"#,
        r#"{"type":["builtin"]}"#,
        r#"{"label":["tier=back"]}"#,
        r#"{"dangling":["true"]}"#,
    ] {
        assert!(!fits(filters, &custom, true), "{filters}");
    }
    assert!(fits(r#"{"dangling":{"true":true}}"#, &custom, false));
    assert!(!fits(r#"{"dangling":["true"]}"#, &builtin, false));
    assert!(fits(r#"{"dangling":["0"]}"#, &builtin, false));
    let query = Query::parse(Some(r#"filters={"type":["x"]}"#)).unwrap();
    let filters = query.filters(FILTERS).unwrap();
    let error = ListFilters::new(&filters).err().unwrap().to_string();
    assert_eq!(error, "invalid filter: 'type'='x'");
}

fn read(body: Value, minor: u16) -> Result<NewNetwork, ApiError> {
    let document = Json::parse(body.to_string().as_bytes()).unwrap();
    create::read(document, ApiVersion::new(1, minor))
}

#[test]
fn bodies_are_read() {
    let whole = json!({
        "Name": "front", "CheckDuplicate": true, "Driver": "bridge", "Scope": "local",
        "EnableIPv4": false, "EnableIPv6": true, "Internal": true, "Attachable": true,
        "IPAM": {
            "Driver": "default",
            "Options": {"a": "b"},
            "Config": [{
                "Subnet": "10.0.0.0/24", "IPRange": "10.0.0.0/25", "Gateway": "10.0.0.1",
                "AuxiliaryAddresses": {"x": "10.0.0.2"},
            }],
        },
        "ConfigFrom": {"Network": ""},
        "Options": {"o": "p"},
        "Labels": {"l": "m"},
    });
    let new = read(whole.clone(), 51).unwrap();
    let expected = NewNetwork {
        name: "front".to_owned(),
        driver: "bridge".to_owned(),
        internal: true,
        attachable: true,
        ipv4: Some(false),
        ipv6: Some(true),
        addressing: Addressing {
            driver: "default".to_owned(),
            options: Some(map(&[("a", "b")])),
            subnets: vec![AskedSubnet {
                subnet: "10.0.0.0/24".to_owned(),
                range: "10.0.0.0/25".to_owned(),
                gateway: "10.0.0.1".to_owned(),
                auxiliary: map(&[("x", "10.0.0.2")]),
            }],
        },
        options: map(&[("o", "p")]),
        labels: map(&[("l", "m")]),
    };
    assert_eq!(new, expected);
    assert_eq!(read(whole, 47).unwrap().ipv4, None);
    let nothing = json!({
        "Name": "n", "Driver": null, "IPAM": null, "Options": null, "Labels": null,
        "EnableIPv6": null, "ConfigFrom": null,
    });
    let plain = NewNetwork {
        name: "n".to_owned(),
        ..NewNetwork::default()
    };
    assert_eq!(read(nothing, 51).unwrap(), plain);
    let empty = json!({"Name": "n", "IPAM": {"Driver": "", "Options": null, "Config": null}});
    assert_eq!(read(empty, 51).unwrap(), plain);
    assert_eq!(read(Value::Null, 51).unwrap(), NewNetwork::default());
}

#[test]
fn options_that_need_a_swarm_are_refused() {
    for (body, words, kind) in [
        (
            json!({"Ingress": true}),
            "Ingress network can only be global scope network",
            ErrorKind::Forbidden,
        ),
        (
            json!({"Scope": "swarm"}),
            "cannot create a swarm scoped network when swarm is not active",
            ErrorKind::Forbidden,
        ),
        (
            json!({"Scope": "galaxy"}),
            "invalid scope \"galaxy\"",
            ErrorKind::InvalidInput,
        ),
        (
            json!({"ConfigOnly": true}),
            "ConfigOnly is not implemented",
            ErrorKind::NotImplemented,
        ),
        (
            json!({"ConfigFrom": {"Network": "c"}}),
            "configuration network \"c\" does not exist",
            ErrorKind::NotFound,
        ),
        (
            json!({"Labels": ["a"]}),
            "invalid value for Labels: ",
            ErrorKind::InvalidInput,
        ),
    ] {
        let error = read(body, 51).unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn connections_by_version() {
    let body = json!({
        "Container": "web",
        "EndpointConfig": {"MacAddress": "02:00:00:00:00:01", "GwPriority": 7, "Aliases": ["a"]},
    });
    let read = |body: &Value, minor: u16| {
        let body = wire::from_slice(body.to_string().as_bytes()).unwrap();
        connect::read_connect("front", body, ApiVersion::new(1, minor))
    };
    let (container, spec) = read(&body, 51).unwrap();
    assert_eq!((&*container, &*spec.network), ("web", "front"));
    assert_eq!(
        (spec.mac, spec.gateway_priority),
        (Some([2, 0, 0, 0, 0, 1]), 7)
    );
    let (_, spec) = read(&body, 44).unwrap();
    assert_eq!((spec.mac.is_some(), spec.gateway_priority), (true, 0));
    let (_, spec) = read(&body, 43).unwrap();
    assert_eq!((spec.mac, &spec.aliases), (None, &vec!["a".to_owned()]));
    for config in [json!(null), json!({})] {
        let body = json!({"Container": "web", "EndpointConfig": config});
        assert_eq!(read(&body, 51).unwrap().1.network, "front");
    }
    let error = read(&json!({}), 51).unwrap_err().to_string();
    assert_eq!(error, "No container name or ID supplied");
}
