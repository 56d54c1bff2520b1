//! Networks of Compose projects, and an interface that is added to a container by hand.

use crate::common::clients::Project;
use crate::{exec, host, idle, inspect};

const FILE: &str = r#"
name: shop
x-all: &all
  image: busybox
  stop_signal: SIGKILL
  command: ["sleep", "100000"]
services:
  front:
    <<: *all
    networks: {outer: {aliases: [www]}, inner: {}}
    ports: ["127.0.0.1::80"]
  store:
    <<: *all
    networks: {inner: {ipv4_address: 10.66.0.9, ipv6_address: "fd66::9", aliases: [depot]}}
  alone:
    <<: *all
    networks: [outer]
    depends_on: [front]
networks:
  outer:
    driver_opts: {com.docker.network.driver.mtu: "1400"}
  inner:
    internal: true
    enable_ipv6: true
    ipam: {config: [{subnet: 10.66.0.0/24}, {subnet: "fd66::/64"}]}
"#;

#[test]
fn a_project_of_two_networks() {
    let Some(host) = host() else { return };
    let Some(project) = Project::new(&host) else {
        return;
    };
    project.write("compose.yaml", FILE);
    project.run(&["up", "-d"]).ok();
    let run = |service: &str, line: &str| project.run(&["exec", "-T", service, "sh", "-c", line]);
    run("front", "ping -c1 -W3 store").ok();
    run("front", "ping -c1 -W3 depot").ok();
    run("front", "ping6 -c1 -W3 store").ok();
    run("store", "ping -c1 -W3 front").ok();
    run("alone", "ping -c1 -W3 www").ok();
    assert_ne!(run("alone", "ping -c1 -W1 store").code, 0);
    assert_eq!(run("store", "ip route | grep ^default || true").ok(), "");
    let store = inspect(&host, "shop-store-1");
    let end = &store["NetworkSettings"]["Networks"]["shop_inner"];
    assert_eq!(end["IPAddress"], "10.66.0.9");
    assert_eq!(end["GlobalIPv6Address"], "fd66::9");
    let mtu = run("alone", "cat /sys/class/net/eth0/mtu").ok();
    assert_eq!(mtu, "1400");

    // Nothing has changed, so nothing is created again.
    let before = project.run(&["ps", "-q"]).ok();
    project.run(&["up", "-d"]).ok();
    assert_eq!(project.run(&["ps", "-q"]).ok(), before);
    // After a stop and a start everything works again.
    project.run(&["restart"]).ok();
    run("front", "ping -c1 -W3 depot").ok();
    project
        .run(&["up", "-d", "--scale", "store=1", "--scale", "alone=3"])
        .ok();
    run("front", "ping -c1 -W3 shop-alone-3").ok();
    project.run(&["down"]).ok();
    let left = host
        .docker(&["network", "ls", "-q", "--filter=name=shop"])
        .ok();
    assert_eq!(left, "");
}

/// The recipe of docs/operation.md.
#[test]
fn any_interface_can_be_added_to_a_container() {
    let Some(host) = host() else { return };
    idle(&host, "aa", &["--network=none"]);
    let pid = inspect(&host, "aa")["State"]["Pid"].to_string();
    host.net()
        .sh(&format!(
            "ip link add far type veth peer name spare && ip link set far up &&
             ip addr add 198.51.100.1/24 dev far && ip link set spare netns {pid} name eth1 &&
             nsenter --net=/proc/{pid}/ns/net ip addr add 198.51.100.2/24 dev eth1 &&
             nsenter --net=/proc/{pid}/ns/net ip link set eth1 up"
        ))
        .ok();
    exec(&host, "aa", "ping -c1 -W3 198.51.100.1").ok();
    host.docker(&["rm", "-f", "aa"]).ok();
}
