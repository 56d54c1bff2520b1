//! Who reaches whom.

use crate::{address, exec, gets, host, idle, web};

#[test]
fn networks_are_separated() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    for options in [&["one"][..], &["two"], &["--internal", "inside"]] {
        let mut args = vec!["network", "create"];
        args.extend(options);
        host.docker(&args).ok();
    }
    web(&host, "one", &["--network=one", "-p=8080:80"]);
    web(&host, "two", &["--network=two"]);
    web(&host, "inside", &["--network=inside"]);
    web(&host, "default", &[]);
    let of = |name: &str| address(&host, name, if name == "default" { "bridge" } else { name });
    let all = ["one", "two", "inside", "default"];
    for from in all {
        for to in all {
            let reached = gets(&host, from, &format!("http://{}/", of(to)));
            assert_eq!(reached.is_ok(), from == to, "{from} {to}: {reached:?}");
        }
    }
    // A neighbour with a route reaches neither published nor other ports at the container's
    // address.
    neighbour.sh("ip route add default via 192.0.2.1").ok();
    for to in all {
        let direct = neighbour.sh(&format!("curl -sS -m 2 http://{}/", of(to)));
        assert_ne!(direct.code, 0, "{to}");
        assert_ne!(
            neighbour
                .sh(&format!(
                    "${{KEELSON_BUSYBOX:-busybox}} ping -c1 -W1 {}",
                    of(to)
                ))
                .code,
            0,
            "{to}"
        );
        host.net()
            .sh(&format!("curl -sS -m 3 http://{}/", of(to)))
            .ok();
    }
    // Packets go out with an address of the host.
    exec(&host, "one", "ping -c1 -W3 192.0.2.2").ok();
    assert_eq!(
        exec(&host, "inside", "ip route | grep ^default || true").ok(),
        ""
    );
    assert_ne!(exec(&host, "inside", "ping -c1 -W1 192.0.2.2").code, 0);
    // The host forwards nothing else.
    host.net().sh("ip addr add 198.51.100.1/24 dev outer").ok();
    host.docker(&["rm", "-f", "one", "two", "inside", "default"])
        .ok();
}

#[test]
fn containers_that_must_not_reach_each_other() {
    let Some(host) = host() else { return };
    // If the host filters bridged packets, packets to published ports are bridged and not routed,
    // and an isolated port of the bridge drops them (docs/operation.md).
    host.net()
        .sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables || true")
        .ok();
    host.docker(&[
        "network",
        "create",
        "-o=com.docker.network.bridge.enable_icc=false",
        "apart",
    ])
    .ok();
    web(&host, "aa", &["--network=apart", "-p=8080:80"]);
    idle(&host, "bb", &["--network=apart"]);
    let a = address(&host, "aa", "apart");
    assert!(gets(&host, "bb", &format!("http://{a}/")).is_err());
    assert_ne!(exec(&host, "bb", &format!("ping -c1 -W1 {a}")).code, 0);
    // But published ports are open to them, too.
    let gateway = exec(&host, "bb", "ip route | awk '/^default/ {print $3}'").ok();
    assert_eq!(
        gets(&host, "bb", &format!("http://{gateway}:8080/")),
        Ok("aa".to_owned())
    );
    host.docker(&["rm", "-f", "aa", "bb"]).ok();
}

#[test]
fn gateway_modes() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    neighbour.sh("ip route add default via 192.0.2.1").ok();
    for mode in ["routed", "nat-unprotected", "nat"] {
        let option = format!("-o=com.docker.network.bridge.gateway_mode_ipv4={mode}");
        host.docker(&["network", "create", &option, mode]).ok();
        let option = format!("--network={mode}");
        let serve =
            "mkdir /w; echo hi > /w/index.html; httpd -p 81 -h /w; exec httpd -f -p 80 -h /w";
        host.docker(&[
            "run",
            "-d",
            "--stop-signal=KILL",
            "--name",
            mode,
            &option,
            "-p=80",
            "busybox",
            "sh",
            "-c",
            serve,
        ])
        .ok();
        let own = address(&host, mode, mode);
        crate::common::wait_until("it listens", || {
            host.net()
                .sh(&format!(
                    "curl -s -m 2 http://{own}:81/ && curl -s -m 2 http://{own}/"
                ))
                .code
                == 0
        });
        let reached = |port| {
            neighbour
                .sh(&format!("curl -s -m 2 http://{own}:{port}/"))
                .code
                == 0
        };
        let expected = match mode {
            "routed" => (true, false),
            "nat-unprotected" => (true, true),
            _ => (false, false),
        };
        assert_eq!((reached(80), reached(81)), expected, "{mode}");
    }
    host.docker(&["rm", "-f", "routed", "nat-unprotected", "nat"])
        .ok();
}
