//! Addresses, routes and interfaces.

use serde_json::json;

use crate::{address, exec, host, host_with, idle, inspect, web};

#[test]
fn the_default_bridge() {
    let Some(host) = host() else { return };
    let id = idle(&host, "aa", &[]);
    idle(&host, "bb", &["--expose=80"]);
    let a = inspect(&host, "aa");
    let settings = &a["NetworkSettings"];
    let end = &settings["Networks"]["bridge"];
    assert_eq!(settings["IPAddress"], "172.17.0.2");
    assert_eq!(settings["IPPrefixLen"], 16);
    assert_eq!(settings["Gateway"], "172.17.0.1");
    assert_eq!(settings["MacAddress"], end["MacAddress"]);
    assert_eq!(end["IPAddress"], "172.17.0.2");
    assert_eq!(end["DNSNames"], json!(null));
    assert_eq!(end["IPAMConfig"], json!(null));
    assert_eq!(a["HostConfig"]["NetworkMode"], "bridge");
    let mac = end["MacAddress"].as_str().unwrap();
    let seen = exec(&host, "aa", "cat /sys/class/net/eth0/address").ok();
    assert_eq!(seen, mac);
    let bridge = inspect(&host, "bridge");
    assert_eq!(bridge["Containers"][&id]["IPv4Address"], "172.17.0.2/16");
    assert_eq!(bridge["Containers"].as_object().unwrap().len(), 2);
    assert_eq!(bridge["IPAM"]["Config"][0]["Gateway"], "172.17.0.1");

    exec(&host, "bb", "ping -c1 -W3 172.17.0.2").ok();
    exec(&host, "bb", "ping -c1 -W3 172.17.0.1").ok();
    host.net()
        .sh("${KEELSON_BUSYBOX:-busybox} ping -c1 -W3 172.17.0.3")
        .ok();
    let hosts = exec(&host, "aa", "cat /etc/hosts").ok();
    let own = format!("172.17.0.2\t{}", &id[..12]);
    assert!(hosts.contains(&own), "{hosts}");
    assert!(
        !exec(&host, "aa", "cat /etc/resolv.conf")
            .ok()
            .contains("127.0.0.11")
    );
    // There is no IPv6 without a request.
    assert_eq!(exec(&host, "aa", "ip -6 addr show dev eth0").ok(), "");

    host.docker(&["stop", "aa"]).ok();
    let stopped = inspect(&host, "aa");
    let end = &stopped["NetworkSettings"]["Networks"]["bridge"];
    assert_eq!(
        (&end["IPAddress"], &end["EndpointID"]),
        (&json!(""), &json!(""))
    );
    assert!(inspect(&host, "bridge")["Containers"][&id].is_null());
    host.docker(&["start", "aa"]).ok();
    host.docker(&["rm", "-f", "aa", "bb"]).ok();
    let left = host.net().sh("ip -br link show type veth").ok();
    crate::common::wait_until("the links are gone", || {
        host.net().sh("ip -br link show type veth").ok().is_empty()
    });
    drop(left);
}

#[test]
fn requested_addresses() {
    let Some(host) = host() else { return };
    host.docker(&[
        "network",
        "create",
        "--subnet=10.9.0.0/24",
        "--ip-range=10.9.0.128/25",
        "--gateway=10.9.0.254",
        "--aux-address=printer=10.9.0.129",
        "--subnet=fd09::/64",
        "--ipv6",
        "own",
    ])
    .ok();
    idle(&host, "free", &["--network=own"]);
    let free = inspect(&host, "free");
    let end = &free["NetworkSettings"]["Networks"]["own"];
    // The first address of the range belongs to the gateway, the second to the printer.
    assert_eq!(end["IPAddress"], "10.9.0.128", "{end:#}");
    assert_eq!(end["Gateway"], "10.9.0.254");
    assert_eq!(end["GlobalIPv6PrefixLen"], 64);
    idle(
        &host,
        "fixed",
        &[
            "--network=own",
            "--ip=10.9.0.7",
            "--ip6=fd09::77",
            "--mac-address=02:42:0a:09:00:07",
            "--network-alias=seven",
        ],
    );
    let fixed = inspect(&host, "fixed");
    let end = &fixed["NetworkSettings"]["Networks"]["own"];
    assert_eq!(end["IPAddress"], "10.9.0.7");
    assert_eq!(end["GlobalIPv6Address"], "fd09::77");
    assert_eq!(end["MacAddress"], "02:42:0a:09:00:07");
    assert_eq!(
        end["IPAMConfig"],
        json!({"IPv4Address": "10.9.0.7", "IPv6Address": "fd09::77"})
    );
    exec(&host, "free", "ping -c1 -W3 10.9.0.7").ok();
    exec(&host, "free", "ping6 -c1 -W3 fd09::77").ok();
    let route = exec(&host, "fixed", "ip route | grep ^default || true").ok();
    assert!(route.contains("via 10.9.0.254"), "{route}");

    let taken = host.docker(&[
        "run",
        "--rm",
        "--network=own",
        "--ip=10.9.0.7",
        "busybox",
        "true",
    ]);
    taken.fails_with("Address already in use");
    let outside = host.docker(&[
        "run",
        "--rm",
        "--network=own",
        "--ip=10.8.0.7",
        "busybox",
        "true",
    ]);
    assert_ne!(outside.code, 0);
    host.docker(&["run", "--rm", "--ip=172.17.0.9", "busybox", "true"])
        .fails_with("user specified IP address is supported on user defined networks only");
    // A stopped container's address is not given to others as long as other addresses are free.
    host.docker(&["stop", "fixed"]).ok();
    host.docker(&["start", "fixed"]).ok();
    assert_eq!(address(&host, "fixed", "own"), "10.9.0.7");
    for (args, words) in [
        (
            &["--subnet=10.9.0.0/25", "x"][..],
            "Pool overlaps with other one on this address space",
        ),
        (&["--subnet=10.20.0.1/24", "x"], "it should be 10.20.0.0/24"),
        (
            &["--subnet=10.20.0.0/24", "--ip-range=10.21.0.0/25", "x"],
            "no matching subnet for range",
        ),
        (&["own"], "network with name own already exists"),
        (
            &["host"],
            "operation is not permitted on predefined host network",
        ),
        (&["--driver=weave", "x"], "plugin"),
    ] {
        let mut all = vec!["network", "create"];
        all.extend(args);
        host.docker(&all).fails_with(words);
    }
    host.docker(&["rm", "-f", "free", "fixed"]).ok();
    host.docker(&["network", "rm", "own"]).ok();
}

#[test]
fn a_container_in_several_networks() {
    let Some(host) = host() else { return };
    for (name, subnet) in [
        ("one", "10.1.0.0/24"),
        ("two", "10.2.0.0/24"),
        ("three", "10.3.0.0/24"),
    ] {
        host.docker(&["network", "create", "--subnet", subnet, name])
            .ok();
    }
    idle(&host, "in-two", &["--network=two"]);
    idle(&host, "in-three", &["--network=three"]);
    idle(&host, "both", &["--network=one", "--network=two"]);
    let default = |name: &str| exec(&host, name, "ip route | grep ^default || true").ok();
    let first = default("both");
    assert!(
        first.contains("10.1.0.1") || first.contains("10.2.0.1"),
        "{first}"
    );
    exec(&host, "both", "ping -c1 -W3 in-two").ok();
    assert_ne!(exec(&host, "both", "ping -c1 -W1 in-three").code, 0);

    // It is connected while it runs.
    host.docker(&["network", "connect", "--alias=me", "three", "both"])
        .ok();
    host.docker(&["network", "connect", "three", "both"])
        .fails_with("already exists in network three");
    exec(&host, "both", "ping -c1 -W3 in-three").ok();
    exec(&host, "in-three", "ping -c1 -W3 both").ok();
    host.docker(&["network", "disconnect", "three", "both"])
        .ok();
    assert_ne!(exec(&host, "both", "ping -c1 -W1 in-three").code, 0);
    host.docker(&["network", "disconnect", "three", "both"])
        .fails_with("is not connected to network three");
    host.docker(&["network", "rm", "two"])
        .fails_with("has active endpoints");
    host.docker(&["network", "rm", "bridge"])
        .fails_with("is a pre-defined network and cannot be removed");
    host.docker(&["network", "disconnect", "two", "both"]).ok();
    host.docker(&["network", "disconnect", "one", "both"]).ok();
    assert_eq!(exec(&host, "both", "ip route").ok(), "");
    let links = exec(&host, "both", "ls /sys/class/net").ok();
    assert_eq!(links, "lo");
    host.docker(&["restart", "both"]).ok();
    assert_eq!(exec(&host, "both", "ls /sys/class/net").ok(), "lo");
    host.docker(&["network", "connect", "one", "both"]).ok();
    assert!(default("both").contains("10.1.0.1"));
    host.docker(&["rm", "-f", "both", "in-two", "in-three"])
        .ok();
    let pruned = host.docker(&["network", "prune", "-f"]).ok();
    assert!(
        pruned.contains("one") && pruned.contains("three"),
        "{pruned}"
    );
}

#[test]
fn many_at_once_have_different_addresses() {
    let Some(host) = host() else { return };
    std::thread::scope(|scope| {
        for number in 0..12 {
            let host = &host;
            scope.spawn(move || {
                let name = format!("c{number}");
                idle(host, &name, &[]);
            });
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..12 {
        assert!(seen.insert(address(&host, &format!("c{number}"), "bridge")));
    }
    std::thread::scope(|scope| {
        for number in 0..12 {
            let host = &host;
            scope.spawn(move || host.docker(&["rm", "-f", &format!("c{number}")]).ok());
        }
    });
    assert_eq!(inspect(&host, "bridge")["Containers"], json!({}));
    crate::common::wait_until("the links are gone", || {
        host.net().sh("ip -br link show type veth").ok().is_empty()
    });
}

#[test]
fn the_networks_of_other_containers() {
    let Some(host) = host() else { return };
    let id = idle(&host, "donor", &["--hostname=given"]);
    idle(&host, "guest", &["--network=container:donor"]);
    let links = |name: &str| exec(&host, name, "ip -4 addr show dev eth0 | grep inet").ok();
    assert_eq!(links("donor"), links("guest"));
    assert_eq!(exec(&host, "guest", "hostname").ok(), "given");
    let guest = inspect(&host, "guest");
    assert_eq!(
        guest["HostConfig"]["NetworkMode"],
        json!(format!("container:{id}"))
    );
    assert_eq!(guest["NetworkSettings"]["Networks"], json!({}));
    host.docker(&["network", "connect", "bridge", "guest"])
        .fails_with("container sharing network namespace with another container or host");
    idle(&host, "alone", &["--network=none"]);
    assert_eq!(exec(&host, "alone", "ls /sys/class/net").ok(), "lo");
    idle(&host, "open", &["--network=host"]);
    assert!(
        exec(&host, "open", "ls /sys/class/net")
            .ok()
            .contains("docker0")
    );
    host.docker(&["run", "--rm", "--network=nowhere", "busybox", "true"])
        .fails_with("network nowhere not found");
    host.docker(&["rm", "-f", "guest", "donor", "alone", "open"])
        .ok();
}

#[test]
fn other_pools_and_another_bridge() {
    let Some(host) = host_with(&["--bridge=yard0", "--bip=10.77.0.1/24"]) else {
        return;
    };
    idle(&host, "aa", &[]);
    assert_eq!(address(&host, "aa", "bridge"), "10.77.0.2");
    assert!(
        host.net()
            .sh("ip addr show dev yard0")
            .ok()
            .contains("10.77.0.1/24")
    );
    host.docker(&["rm", "-f", "aa"]).ok();
}

/// `[engine.networks]` of the host's configuration.
#[test]
fn the_hosts_configuration_says_where_addresses_come_from() {
    let Some(mut host) = host() else { return };
    let directory = host.path().join("config/etc/keelson");
    std::fs::create_dir_all(&directory).unwrap();
    let text = "[engine.networks]\n\
        address = \"10.78.0.1/24\"\n\
        address_ipv6 = \"fd78::1/64\"\n\
        mtu = 1400\n\
        range = \"10.78.0.128/25\"\n\
        resolver_options = [\"timeout:7\"]\n\
        host_addresses = [\"192.0.2.1\"]\n\
        direct_routing = true\n\
        accept_mark = \"0x8/0x8\"\n\
        address_pools = [{ base = \"10.200.0.0/23\", size = 24 }]\n\
        [engine.networks.default_options.bridge]\n\
        \"com.docker.network.driver.mtu\" = \"1450\"\n";
    std::fs::write(directory.join("host.toml"), text).unwrap();
    host.stop_daemon();
    host.start_daemon();
    web(&host, "aa", &["--add-host=me:host-gateway", "-p=8080:80"]);
    let end = inspect(&host, "aa")["NetworkSettings"]["Networks"]["bridge"].clone();
    assert_eq!(end["IPAddress"], "10.78.0.128", "{end:#}");
    assert_eq!(end["Gateway"], "10.78.0.1");
    assert_eq!(end["GlobalIPv6Address"], "fd78::2");
    assert_eq!(end["IPv6Gateway"], "fd78::1");
    assert_eq!(
        exec(&host, "aa", "cat /sys/class/net/eth0/mtu").ok(),
        "1400"
    );
    exec(&host, "aa", "ping6 -c1 -W3 fd78::1").ok();
    exec(&host, "aa", "grep '^192.0.2.1\tme$' /etc/hosts").ok();
    exec(&host, "aa", "grep timeout:7 /etc/resolv.conf").ok();
    let neighbour = host.net().neighbour();
    neighbour.sh("ip route add 10.78.0.0/24 via 192.0.2.1").ok();
    neighbour.sh("curl -sS -m 5 http://10.78.0.128/").ok();
    let filter = host.net().sh("nft list chain inet keelson forward").ok();
    assert!(
        filter.contains("meta mark & 0x00000008 == 0x00000008 accept"),
        "{filter}"
    );
    for subnet in ["10.200.0.0/24", "10.200.1.0/24"] {
        let name = format!("net-{}", &subnet[7..8]);
        host.docker(&["network", "create", &name]).ok();
        let network = inspect(&host, &name);
        assert_eq!(network["IPAM"]["Config"][0]["Subnet"], subnet);
        assert_eq!(network["Options"]["com.docker.network.driver.mtu"], "1450");
    }
    host.docker(&["network", "create", "more"])
        .fails_with("all predefined address pools have been fully subnetted");
    let pools = host
        .docker(&["info", "--format={{json .DefaultAddressPools}}"])
        .ok();
    assert!(pools.contains("10.200.0.0/23"), "{pools}");
    host.docker(&["rm", "-f", "aa"]).ok();
}

#[test]
fn further_addresses_on_a_link_of_the_host() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    host.docker(&[
        "network",
        "create",
        "-d=macvlan",
        "-o=parent=outer",
        "--subnet=192.0.2.0/24",
        "--gateway=192.0.2.2",
        "--ip-range=192.0.2.64/26",
        "wire",
    ])
    .ok();
    idle(&host, "aa", &["--network=wire"]);
    let own = address(&host, "aa", "wire");
    assert!(own.starts_with("192.0.2."), "{own}");
    neighbour
        .sh(&format!("${{KEELSON_BUSYBOX:-busybox}} ping -c1 -W3 {own}"))
        .ok();
    exec(&host, "aa", "ping -c1 -W3 192.0.2.2").ok();
    host.docker(&["rm", "-f", "aa"]).ok();
    host.docker(&["network", "rm", "wire"]).ok();
    host.docker(&["network", "create", "-d=macvlan", "-o=parent=lo", "loop"])
        .fails_with("loopback interface is not a valid macvlan parent link");
}
