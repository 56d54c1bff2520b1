//! Names of containers.

use std::time::Duration;

use crate::common::{run, wait_until};
use crate::{address, exec, host, idle, inside};

/// The addresses that a name has, as a container sees it.
#[track_caller]
fn lookup(host: &crate::common::Host, from: &str, name: &str) -> Vec<String> {
    let done = exec(host, from, &format!("nslookup -type=a {name}. 127.0.0.11"));
    let text = done
        .stdout
        .split_once("\n\n")
        .map_or(String::new(), |(_, rest)| rest.to_owned());
    let mut found: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Address"))
        .filter_map(|rest| rest.split_whitespace().last())
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn names_aliases_links_and_pointers() {
    let Some(host) = host() else { return };
    for name in ["front", "back"] {
        host.docker(&["network", "create", name]).ok();
    }
    let id = idle(
        &host,
        "db",
        &[
            "--network=back",
            "--network-alias=store",
            "--hostname=dbhost",
        ],
    );
    idle(&host, "web", &["--network=front"]);
    idle(&host, "app", &["--network=back", "--link=db:data"]);
    let db = address(&host, "db", "back");
    for name in [
        "db",
        "DB",
        "store",
        "dbhost",
        &id[..12],
        "db.back",
        "store.back",
        "data",
    ] {
        assert_eq!(lookup(&host, "app", name), [db.as_str()], "{name}");
    }
    assert!(lookup(&host, "web", "db").is_empty());
    let pointer = exec(&host, "app", &format!("nslookup {db} 127.0.0.11")).stdout;
    assert!(pointer.contains("db.back"), "{pointer}");
    let conf = exec(&host, "app", "cat /etc/resolv.conf").ok();
    assert!(
        conf.contains("nameserver 127.0.0.11") && conf.contains("options ndots:0"),
        "{conf}"
    );
    // A name without an address of the family exists nevertheless.
    let none = exec(&host, "app", "nslookup -type=aaaa db. 127.0.0.11").stdout;
    assert!(!none.contains("NXDOMAIN"), "{none}");
    exec(&host, "app", "ping -c1 -W3 db").ok();

    host.docker(&["rename", "db", "base"]).ok();
    assert_eq!(lookup(&host, "app", "base"), [db.as_str()]);
    assert!(lookup(&host, "app", "db").is_empty());

    // Changes are effective at once.
    host.docker(&["network", "connect", "--alias=late", "front", "base"])
        .ok();
    let front = address(&host, "base", "front");
    assert_eq!(lookup(&host, "web", "late"), [front.as_str()]);
    host.docker(&["network", "disconnect", "front", "base"])
        .ok();
    assert!(lookup(&host, "web", "late").is_empty());
    idle(
        &host,
        "second",
        &["--network=back", "--network-alias=store"],
    );
    let second = address(&host, "second", "back");
    let mut both = [db, second.clone()];
    both.sort();
    assert_eq!(lookup(&host, "app", "store"), both);
    host.docker(&["stop", "base"]).ok();
    assert_eq!(lookup(&host, "app", "store"), [second.as_str()]);
    // The container's own server at the same port.
    let serve = "import socket\n\
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):\n \
        socket.socket(socket.AF_INET, kind).bind(('0.0.0.0', 53))\n";
    run(inside(&host, "app", "python3").args(["-c", serve]), b"").ok();
    host.docker(&["rm", "-f", "base", "second", "web", "app"])
        .ok();
}

/// A container of the default bridge that is connected to another network while it runs.
#[test]
fn name_servers_follow_the_networks() {
    let Some(host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    idle(&host, "db", &["--network=net"]);
    idle(
        &host,
        "web",
        &["--dns=192.0.2.53", "--dns-search=lan.example"],
    );
    let conf = || exec(&host, "web", "cat /etc/resolv.conf").ok();
    let before = conf();
    assert!(before.contains("nameserver 192.0.2.53"), "{before}");
    host.docker(&["network", "connect", "net", "web"]).ok();
    let connected = conf();
    assert!(
        connected.contains("nameserver 127.0.0.11") && connected.contains("search lan.example"),
        "{connected}"
    );
    exec(&host, "web", "ping -c1 -W3 db").ok();
    host.docker(&["network", "disconnect", "net", "web"]).ok();
    assert_eq!(conf(), before);
    // Connecting it again has the same result, and a user's changes are kept.
    host.docker(&["network", "connect", "net", "web"]).ok();
    assert_eq!(conf(), connected);
    exec(
        &host,
        "web",
        "echo nameserver 192.0.2.54 > /etc/resolv.conf",
    )
    .ok();
    host.docker(&["network", "disconnect", "net", "web"]).ok();
    assert_eq!(conf(), "nameserver 192.0.2.54");
    host.docker(&["rm", "-f", "web", "db"]).ok();
}

#[test]
fn names_outlive_hostd() {
    let Some(mut host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    idle(&host, "aa", &["--network=net"]);
    idle(&host, "bb", &["--network=net", "--network-alias=also"]);
    let b = address(&host, "bb", "net");
    let ask = "nslookup -type=a also. 127.0.0.11 | grep -c Address";
    // It keeps asking by itself while hostd is down.
    let script = format!(
        "rm -f /wrong; touch /asking; while [ -e /asking ]; do nslookup -type=a also. 127.0.0.11 | grep -q {b} || echo x >> /wrong; done"
    );
    host.docker(&["exec", "-d", "aa", "sh", "-c", &script]).ok();
    host.kill_daemon();
    std::thread::sleep(Duration::from_secs(3));
    host.start_daemon();
    wait_until("the API answers", || host.docker(&["ps"]).code == 0);
    assert_eq!(exec(&host, "aa", ask).ok(), "2");
    exec(&host, "aa", "rm /asking").ok();
    let wrong = exec(&host, "aa", "cat /wrong 2>/dev/null | wc -l").ok();
    assert_eq!(wrong, "0");
    // Later containers are known, too.
    idle(&host, "cc", &["--network=net"]);
    let c = address(&host, "cc", "net");
    assert_eq!(lookup(&host, "aa", "cc"), [c.as_str()]);
    host.docker(&["rm", "-f", "aa", "bb", "cc"]).ok();
}

#[test]
fn links_in_the_default_network() {
    let Some(host) = host() else { return };
    idle(&host, "db1", &["--expose=5432", "-e=WORD=sesame"]);
    idle(&host, "web", &["--link=db1:db"]);
    let address = address(&host, "db1", "bridge");
    let variables = exec(&host, "web", "env").ok();
    for expected in [
        format!("DB_PORT=tcp://{address}:5432"),
        format!("DB_PORT_5432_TCP_ADDR={address}"),
        "DB_NAME=/web/db".to_owned(),
        "DB_ENV_WORD=sesame".to_owned(),
    ] {
        assert!(
            variables.lines().any(|line| line == expected),
            "{expected}\n{variables}"
        );
    }
    exec(&host, "web", "ping -c1 -W3 db").ok();
    exec(&host, "web", "ping -c1 -W3 db1").ok();
    host.docker(&["stop", "web", "db1"]).ok();
    host.docker(&["start", "web"])
        .fails_with("Cannot link to a non running container: /db1 AS /web/db");
    host.docker(&["rm", "-f", "web", "db1"]).ok();
}
