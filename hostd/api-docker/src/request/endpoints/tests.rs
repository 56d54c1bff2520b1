use serde_json::{Value, json};

use super::*;

fn read(network: &str, settings: Value) -> Result<ConnectionSpec, String> {
    let settings = keelson_model::json::from_slice(settings.to_string().as_bytes()).unwrap();
    connection(network, &settings).map_err(|error| error.to_string())
}

#[test]
fn all_settings_are_parsed() {
    let spec = read(
        "front",
        json!({
            "IPAMConfig": {
                "IPv4Address": "10.0.0.5", "IPv6Address": "fd00::5", "LinkLocalIPs": ["169.254.1.1"],
            },
            "Links": ["db:database", "cache"],
            "Aliases": ["web", "www.example"],
            "MacAddress": "02:42:AC:11:00:02",
            "GwPriority": -3,
            "DriverOpts": {
                "com.docker.network.endpoint.sysctls":
                    "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2",
                "com.docker.network.endpoint.ifname": "wan0",
                "other": "kept",
            },
        }),
    )
    .unwrap();
    assert_eq!(spec.network, "front");
    assert_eq!(spec.ipv4, Some(Ipv4Addr::new(10, 0, 0, 5)));
    assert_eq!(spec.ipv6, "fd00::5".parse().ok());
    assert_eq!(spec.link_local, ["169.254.1.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(spec.aliases, ["web", "www.example"]);
    let links = spec.links.iter();
    let links: Vec<_> = links
        .map(|link| (link.container.as_str(), link.alias.as_str()))
        .collect();
    assert_eq!(links, [("db", "database"), ("cache", "cache")]);
    assert_eq!(spec.mac, Some([2, 0x42, 0xac, 0x11, 0, 2]));
    assert_eq!(spec.gateway_priority, -3);
    assert_eq!(spec.interface.as_deref(), Some("wan0"));
    let sysctls: Vec<_> = spec.sysctls.into_iter().collect();
    assert_eq!(
        sysctls,
        [
            (
                "net.ipv4.conf.IFNAME.log_martians".to_owned(),
                "1".to_owned()
            ),
            ("net.ipv6.conf.IFNAME.accept_ra".to_owned(), "2".to_owned()),
        ]
    );
    assert_eq!(
        spec.options,
        [("other".to_owned(), "kept".to_owned())].into()
    );
}

/// Clients send back values that they have read, including null and empty ones.
#[test]
fn empty_settings_request_nothing() {
    let plain = ConnectionSpec {
        network: "front".to_owned(),
        ..ConnectionSpec::default()
    };
    for settings in [
        json!({}),
        json!({"IPAMConfig": null, "Links": null, "Aliases": null, "DriverOpts": null}),
        json!({"IPAMConfig": {}, "Links": [], "Aliases": [], "DriverOpts": {}, "MacAddress": ""}),
        json!({"IPAddress": "172.18.0.7", "Gateway": "172.18.0.1", "EndpointID": "abc"}),
        json!({"IPAMConfig": {"IPv4Address": "", "LinkLocalIPs": null}}),
        json!({"DriverOpts": {"com.docker.network.endpoint.ifname": ""}}),
    ] {
        assert_eq!(
            read("front", settings.clone()).unwrap(),
            plain,
            "{settings}"
        );
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let ipam = json!({"IPAMConfig": {
        "IPv4Address": "fd00::1", "IPv6Address": "10.0.0.1", "LinkLocalIPs": ["x"],
    }});
    assert_eq!(
        read("front", ipam).unwrap_err(),
        "invalid endpoint settings:\n* invalid IPv4 address: fd00::1\n* invalid IPv6 address: 10.0.0.1\n* invalid link-local IP address: x"
    );
    let bridge = json!({"IPAMConfig": {"IPv4Address": "172.17.0.9"}});
    for name in ["bridge", "default", "host", "none", ""] {
        assert_eq!(
            read(name, bridge.clone()).unwrap_err(),
            "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only"
        );
    }
    assert_eq!(
        read("bridge", json!({"Aliases": ["a"]})).unwrap_err(),
        "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks"
    );
}

#[test]
fn wrong_values_are_named() {
    let option = |name: &str, value: &str| json!({"DriverOpts": {name: value}});
    for (settings, part) in [
        (
            json!({"IPAMConfig": {"IPv4Address": "0.0.0.0"}}),
            "invalid IPv4 address: 0.0.0.0",
        ),
        (
            json!({"IPAMConfig": {"IPv6Address": "::ffff:1.2.3.4"}}),
            "invalid IPv6 address: ::ffff",
        ),
        (
            json!({"IPAMConfig": {"IPv6Address": "fe80::1%eth0"}}),
            "invalid IPv6 address: fe80",
        ),
        (json!({"Links": [""]}), "empty string specified for links"),
        (json!({"Links": ["a:b:c"]}), "bad format for links: a:b:c"),
        (json!({"Links": [":b"]}), "bad format for links: :b"),
        (json!({"Aliases": [""]}), "invalid alias \"\""),
        (json!({"Aliases": ["a b"]}), "invalid alias \"a b\""),
        (json!({"Aliases": ["x".repeat(64)]}), "invalid alias"),
        (option(INTERFACE, "a/b"), "invalid interface name \"a/b\""),
        (option(INTERFACE, "lo"), "invalid interface name \"lo\""),
        (option(INTERFACE, "eth%d"), "invalid interface name"),
        (option(INTERFACE, &"e".repeat(16)), "invalid interface name"),
        (
            option(SYSCTLS, "net.ipv4.conf.eth0.forwarding=1"),
            "unrecognised network interface sysctl",
        ),
        (
            option(SYSCTLS, "net.core.IFNAME.x=1"),
            "unrecognised network interface sysctl",
        ),
        (
            option(SYSCTLS, "net.ipv4.conf.IFNAME.a.b=1"),
            "unrecognised network interface sysctl",
        ),
        (
            option(SYSCTLS, "net.ipv4..IFNAME.a=1"),
            "unrecognised network interface sysctl",
        ),
        (
            option(SYSCTLS, "net.ipv4.conf/../x.IFNAME.a=1"),
            "unrecognised network interface sysctl",
        ),
        (
            option(SYSCTLS, ""),
            "unrecognised network interface sysctl ''",
        ),
        (
            option(SYSCTLS, "net.ipv4.conf.IFNAME.x"),
            "to have format name=value",
        ),
        (
            option("x", &"y".repeat(LARGEST)),
            "its texts have 65537 bytes",
        ),
    ] {
        let error = read("front", settings.clone()).unwrap_err();
        assert!(error.contains(part), "{settings}: {error}");
    }
}

#[test]
fn links_are_parsed_as_inspect_shows_them() {
    let link = link("/db:/web/database").unwrap();
    assert_eq!(
        (link.container.as_str(), link.alias.as_str()),
        ("db", "database")
    );
}

#[test]
fn hardware_addresses() {
    let expected = [2, 0x42, 0xac, 0x11, 0, 2];
    for text in ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "0242.ac11.0002"] {
        assert_eq!(read_mac(text).unwrap(), expected, "{text}");
    }
    for text in [
        "",
        "02",
        "02:42:ac:11:00",
        "02:42:ac:11:00:02:03",
        "02:42:ac:11:00:0g",
        "2:42:ac:11:00:02",
        "02:42-ac:11:00:02",
        "0242ac110002",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
        "+2:42:ac:11:00:02",
        "0242.ac11.000",
        "é2:42:ac:11:00:02",
    ] {
        let error = read_mac(text).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("invalid MAC address {text}")),
            "{error}"
        );
    }
}
