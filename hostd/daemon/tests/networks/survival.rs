//! What happens to networks when hostd, the host or somebody else interferes.

use serde_json::Value;

use crate::common::{Host, wait_until};
use crate::{address, exec, gets, host, idle, inspect, web};

fn served(host: &Host) -> bool {
    host.net().sh("curl -s -m 2 http://127.0.0.1:8080/").code == 0
}

#[test]
fn everything_works_without_hostd() {
    let Some(mut host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    web(
        &host,
        "web",
        &["--network=net", "-p=8080:80", "--restart=always"],
    );
    idle(&host, "gone", &["--network=net"]);
    let before = inspect(&host, "web")["NetworkSettings"].clone();
    let pid = inspect(&host, "gone")["State"]["Pid"].to_string();
    host.kill_daemon();
    assert!(served(&host));
    // It ends while no hostd runs.
    host.net().sh(&format!("kill -9 {pid}")).ok();
    host.start_daemon();
    assert!(served(&host));
    wait_until("the end is known", || {
        inspect(&host, "gone")["State"]["Status"] == "exited"
    });
    assert_eq!(inspect(&host, "web")["NetworkSettings"], before);
    let network = inspect(&host, "net");
    assert_eq!(
        network["Containers"].as_object().unwrap().len(),
        1,
        "{network:#}"
    );
    // Its port is still held.
    host.docker(&["run", "--rm", "-p=8080:80", "busybox", "true"])
        .fails_with("port is already allocated");
    // An orderly stop and start.
    host.stop_daemon();
    host.start_daemon();
    wait_until("it serves again", || served(&host));
    host.docker(&["rm", "-f", "web", "gone"]).ok();
    host.docker(&["network", "rm", "net"]).ok();
}

#[test]
fn a_flushed_packet_filter_is_restored() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    web(&host, "web", &["-p=8080:80"]);
    host.docker(&["network", "create", "other"]).ok();
    idle(&host, "other", &["--network=other"]);
    host.net().sh("nft flush ruleset").ok();
    wait_until("it is reached again", || {
        neighbour.sh("curl -s -m 2 http://192.0.2.1:8080/").code == 0
    });
    let web = address(&host, "web", "bridge");
    assert!(gets(&host, "other", &format!("http://{web}/")).is_err());
    // Rules of others are not changed.
    host.net()
        .sh("nft add table inet mine && nft add chain inet mine c")
        .ok();
    idle(&host, "more", &["-p=8081:80"]);
    assert!(host.net().sh("nft list tables").ok().contains("inet mine"));
    host.docker(&["rm", "-f", "web", "other", "more"]).ok();
}

#[test]
fn a_vanished_bridge_is_created_again() {
    let Some(host) = host() else { return };
    web(&host, "web", &["-p=8080:80"]);
    host.net().sh("ip link del docker0").ok();
    wait_until("it is reached again", || served(&host));
    idle(&host, "more", &[]);
    let web = address(&host, "web", "bridge");
    exec(&host, "more", &format!("ping -c1 -W3 {web}")).ok();
    host.docker(&["rm", "-f", "web", "more"]).ok();
}

#[test]
fn a_container_that_changes_its_interface() {
    let Some(host) = host() else { return };
    idle(&host, "aa", &["--cap-add=NET_ADMIN"]);
    exec(
        &host,
        "aa",
        "ip link set eth0 down && ip link set eth0 name wan0",
    )
    .ok();
    host.docker(&["restart", "aa"]).ok();
    exec(&host, "aa", "ping -c1 -W3 172.17.0.1").ok();
    exec(&host, "aa", "ip link del eth0").ok();
    host.docker(&["restart", "aa"]).ok();
    exec(&host, "aa", "ping -c1 -W3 172.17.0.1").ok();
    host.docker(&["rm", "-f", "aa"]).ok();
    wait_until("the links are gone", || {
        host.net().sh("ip -br link show type veth").ok().is_empty()
    });
}

/// hostd was killed after it had written a connection down, and before it made it.
#[test]
fn a_connection_that_was_only_written_down_can_be_removed() {
    let Some(mut host) = host() else { return };
    host.docker(&["network", "create", "net"]).ok();
    host.docker(&["network", "create", "first"]).ok();
    let id = idle(&host, "aa", &["--network=first"]);
    host.kill_daemon();
    let path = host
        .path()
        .join("root/engine/containers")
        .join(&id)
        .join("container.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let connections = document["spec"]["connections"].as_array_mut().unwrap();
    let mut connection = connections[0].clone();
    connection["network"] = "net".into();
    connections.push(connection);
    std::fs::write(&path, document.to_string()).unwrap();
    host.start_daemon();
    wait_until("the API answers", || host.docker(&["ps"]).code == 0);
    host.docker(&["network", "disconnect", "net", "aa"]).ok();
    host.docker(&["network", "disconnect", "net", "aa"])
        .fails_with("is not connected to network net");
    let networks = inspect(&host, "aa")["NetworkSettings"]["Networks"].clone();
    assert_eq!(networks.as_object().unwrap().len(), 1, "{networks:#}");
    host.docker(&["network", "connect", "net", "aa"]).ok();
    host.docker(&["network", "connect", "net", "aa"])
        .fails_with("already exists in network net");
    host.docker(&["rm", "-f", "aa"]).ok();
}
