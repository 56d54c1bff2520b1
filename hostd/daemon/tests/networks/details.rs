//! What clients and users rely on in single places.

use serde_json::{Value, json};

use crate::common::Host;
use crate::{address, exec, host, idle, inspect, web};

/// Makes a container by the API.
#[track_caller]
fn create(host: &Host, name: &str, mode: &str, endpoints: &Value) -> (u16, String) {
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "100000"], "StopSignal": "SIGKILL",
        "HostConfig": {"NetworkMode": mode},
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    });
    let path = format!("/v1.48/containers/create?name={name}");
    host.send("POST", &path, &body.to_string())
}

#[test]
fn a_network_is_one_by_its_name_and_by_its_identifier() {
    let Some(host) = host() else { return };
    let id = host.docker(&["network", "create", "net"]).ok();
    let twice = json!({ &id[..12]: {"Aliases": ["me"]} });
    assert_eq!(create(&host, "aa", "net", &twice).0, 201);
    host.docker(&["start", "aa"]).ok();
    let networks = inspect(&host, "aa")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().unwrap().len(), 1, "{networks:#}");
    assert!(
        networks["net"]["Aliases"].to_string().contains("\"me\""),
        "{networks:#}"
    );
    let other = json!({ &id: {"Aliases": ["me"]}, "net": {"Aliases": ["you"]} });
    let (code, answer) = create(&host, "bb", "net", &other);
    assert_eq!(code, 400, "{answer}");
    assert!(answer.contains("are given twice"), "{answer}");
    idle(&host, "cc", &["--network", &id]);
    exec(&host, "cc", "ping -c1 -W3 me").ok();
    host.docker(&["rm", "-f", "aa", "cc"]).ok();
}

/// Older clients see who is in a network in the list, newer ones do not.
#[test]
fn lists_of_networks_by_version() {
    let Some(host) = host() else { return };
    let id = idle(&host, "aa", &[]);
    let bridge = |version: &str| -> Value {
        let (code, text) = host.get(&format!("/v{version}/networks"));
        assert_eq!(code, 200, "{text}");
        let list: Value = serde_json::from_str(&text).unwrap();
        let list = list.as_array().unwrap().clone();
        list.into_iter()
            .find(|one| one["Name"] == "bridge")
            .unwrap()
    };
    assert!(bridge("1.27")["Containers"][&id].is_object());
    assert_eq!(bridge("1.28")["Containers"], json!({}));
    assert_eq!(bridge("1.48")["Containers"], json!({}));
    assert!(bridge("1.48")["Status"].is_null());
    host.docker(&["rm", "-f", "aa"]).ok();
}

#[test]
fn events_of_a_containers_networks_come_in_their_order() {
    let Some(host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    idle(&host, "aa", &["--network=net"]);
    host.docker(&["stop", "aa"]).ok();
    host.docker(&["rm", "aa"]).ok();
    host.docker(&["network", "rm", "net"]).ok();
    let text = host.events();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events: Vec<Value> = events.collect();
    let actions = events.iter().map(|event| {
        let kind = event["Type"].as_str().unwrap_or_default();
        let action = event["Action"].as_str().unwrap_or_default();
        format!("{kind} {action}")
    });
    let wanted = [
        "network create",
        "network connect",
        "container start",
        "network disconnect",
        "container die",
        "network destroy",
    ];
    let seen: Vec<String> = actions
        .filter(|action| wanted.contains(&action.as_str()))
        .collect();
    assert_eq!(seen, wanted, "{text}");
    for event in events.iter().filter(|event| event["Type"] == "network") {
        let attributes = &event["Actor"]["Attributes"];
        assert_eq!(attributes["name"], "net", "{event:#}");
        assert_eq!(attributes["type"], "bridge", "{event:#}");
    }
}

#[test]
fn a_network_of_ipv6_alone() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    let body = json!({"Name": "six", "EnableIPv4": false, "EnableIPv6": true});
    let (code, answer) = host.send("POST", "/v1.48/networks/create", &body.to_string());
    assert_eq!(code, 201, "{answer}");
    web(&host, "web", &["--network=six", "-p=8080:80"]);
    idle(&host, "aa", &["--network=six"]);
    let end = inspect(&host, "aa")["NetworkSettings"]["Networks"]["six"].clone();
    assert_eq!(end["IPAddress"], "", "{end:#}");
    assert_eq!(end["Gateway"], "", "{end:#}");
    assert_eq!(exec(&host, "aa", "ip -4 route").ok(), "");
    // Names are asked for at an address of IPv4 all the same.
    exec(
        &host,
        "aa",
        "grep 127.0.0.11 /etc/resolv.conf && ping6 -c1 -W3 web",
    )
    .ok();
    exec(&host, "aa", "ping6 -c1 -W3 2001:db8::2").ok();
    let page = neighbour.sh("curl -g -sS -m 3 http://[2001:db8::1]:8080/");
    assert_eq!(page.ok().trim(), "web");
    host.docker(&["rm", "-f", "web", "aa"]).ok();
}

/// It is mounted, so it is the same file all the time.
#[test]
fn the_hosts_file_follows_the_networks() {
    let Some(host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    idle(
        &host,
        "aa",
        &[
            "--hostname=aa.example.org",
            "--add-host=gate:host-gateway",
            "--add-host=six:::1",
        ],
    );
    let file = || exec(&host, "aa", "cat /etc/hosts").ok();
    let inode = || exec(&host, "aa", "stat -c %i /etc/hosts").ok();
    let (before, first) = (file(), inode());
    let own = address(&host, "aa", "bridge");
    assert!(
        before.contains(&format!("{own}\taa.example.org aa")),
        "{before}"
    );
    assert!(
        before.contains("172.17.0.1\tgate") && before.contains("::1\tsix"),
        "{before}"
    );
    host.docker(&["network", "connect", "net", "aa"]).ok();
    let other = address(&host, "aa", "net");
    let both = file();
    assert!(
        both.contains(&own) && both.contains(&format!("{other}\taa.example.org aa")),
        "{both}"
    );
    host.docker(&["network", "disconnect", "net", "aa"]).ok();
    assert_eq!(file(), before);
    assert_eq!(inode(), first);
    host.docker(&["rm", "-f", "aa"]).ok();
}

#[test]
fn links_follow_a_container_that_is_started_anew() {
    let Some(host) = host() else { return };
    idle(&host, "db", &[]);
    idle(&host, "web", &["--link=db:store"]);
    host.docker(&["stop", "db"]).ok();
    // Somebody else has its address meanwhile.
    idle(&host, "other", &[]);
    for number in 0..3 {
        idle(&host, &format!("more{number}"), &[]);
    }
    host.docker(&["start", "db"]).ok();
    let now = address(&host, "db", "bridge");
    let hosts = exec(&host, "web", "cat /etc/hosts").ok();
    let store: Vec<&str> = hosts
        .lines()
        .filter(|line| line.contains("store"))
        .collect();
    assert_eq!(store.len(), 1, "{hosts}");
    assert!(store[0].starts_with(&format!("{now}\t")), "{hosts}");
    exec(&host, "web", "ping -c1 -W3 store").ok();
    host.docker(&["rm", "-f", "db", "web", "other", "more0", "more1", "more2"])
        .ok();
}

#[test]
fn who_publishes_the_port_of_dns_answers_nobody_elses_questions() {
    let Some(host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    idle(&host, "db", &["--network=net"]);
    idle(
        &host,
        "dns",
        &["--network=net", "-p=53:53/udp", "-p=53:53/tcp"],
    );
    idle(&host, "web", &["--network=net"]);
    exec(&host, "web", "ping -c1 -W3 db").ok();
    exec(&host, "dns", "ping -c1 -W3 db").ok();
    host.docker(&["rm", "-f", "db", "dns", "web"]).ok();
}

#[test]
fn who_shares_a_network_needs_its_owner() {
    let Some(host) = host() else { return };
    idle(&host, "donor", &[]);
    host.docker(&["stop", "donor"]).ok();
    host.docker(&[
        "run",
        "--rm",
        "--network=container:donor",
        "busybox",
        "true",
    ])
    .fails_with("cannot join network namespace of a non running container");
    host.docker(&["rm", "-f", "donor"]).ok();
}

/// Compose does so when a network's definition has changed.
#[test]
fn a_stopped_container_moves_to_another_network() {
    let Some(host) = host() else { return };
    host.docker(&["network", "create", "--subnet=10.5.0.0/24", "net"])
        .ok();
    idle(&host, "aa", &["--network=net", "--ip=10.5.0.9"]);
    host.docker(&["stop", "aa"]).ok();
    host.docker(&["network", "disconnect", "-f", "net", "aa"])
        .ok();
    host.docker(&["network", "rm", "net"]).ok();
    host.docker(&["network", "create", "--subnet=10.6.0.0/24", "net"])
        .ok();
    let connect = json!({"Container": "aa", "EndpointConfig": null});
    let (code, answer) = host.send("POST", "/v1.48/networks/net/connect", &connect.to_string());
    assert_eq!(code, 200, "{answer}");
    host.docker(&["start", "aa"]).ok();
    let own = address(&host, "aa", "net");
    assert!(own.starts_with("10.6.0."), "{own}");
    host.docker(&["rm", "-f", "aa"]).ok();
}
