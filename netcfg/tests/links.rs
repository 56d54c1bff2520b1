//! Links without DHCP: static configuration, hotplug, broken configuration.

mod common;

use std::fs;

use common::{LINK, Net, may_run, wait_for, wait_for_notification};
use nix::sys::signal::Signal;

#[test]
fn a_static_configuration_is_applied_and_changed() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.configure(&format!(
        "[network]\nnameservers = ['192.0.2.53', '2001:db8::53']\nsearch = ['corp.example']\n\
         [[network.link]]\nname = '{LINK}'\nmtu = 1400\n\
         addresses = ['192.0.2.10/24', '198.51.100.10/32', '2001:db8::10/64']\n\
         gateways = ['192.0.2.1', 'fe80::1']\n\
         [time]\nservers = ['ntp.example']\n"
    ));
    let (daemon, notify) = net.start();
    wait_for_notification(&notify, "READY=1");
    // Everything is configured when the daemon reports that it is ready.
    assert_eq!(net.addresses(), ["192.0.2.10/24", "198.51.100.10/32"]);
    let v6 = net.on_client(&format!("-6 addr show dev {LINK}"));
    assert!(v6.contains("2001:db8::10/64"), "{v6}");
    assert!(v6.contains("mtu 1400"), "{v6}");
    let routes = net.on_client("-4 route show");
    assert!(routes.contains("default via 192.0.2.1"), "{routes}");
    let routes = net.on_client("-6 route show");
    assert!(routes.contains("default via fe80::1"), "{routes}");
    assert_eq!(
        fs::read_to_string(net.path("run/resolv.conf"))
            .unwrap()
            .lines()
            .skip(1)
            .collect::<Vec<_>>(),
        [
            "nameserver 192.0.2.53",
            "nameserver 2001:db8::53",
            "search corp.example"
        ]
    );
    let time = fs::read_to_string(net.path("run/netcfg/ntp-servers")).unwrap();
    assert_eq!(time, "ntp.example\n");

    // Addresses that others made stay. Addresses that left the configuration are removed.
    net.on_client(&format!("addr add 203.0.113.1/24 dev {LINK}"));
    net.configure(&format!(
        "[[network.link]]\nname = '{LINK}'\naddresses = ['192.0.2.11/24']\n"
    ));
    daemon.signal(Signal::SIGHUP);
    wait_for("the new addresses", || {
        let mut addresses = net.addresses();
        addresses.sort();
        (addresses == ["192.0.2.11/24", "203.0.113.1/24"]).then_some(())
    });
    wait_for("the default route to go", || {
        let routes = net.on_client("-4 route show");
        (!routes.contains("default")).then_some(())
    });
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
}

#[test]
fn removed_addresses_are_restored() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.configure(&format!(
        "[[network.link]]\nname = '{LINK}'\naddresses = ['192.0.2.10/24']\ngateways = ['192.0.2.1']\n"
    ));
    let (_daemon, notify) = net.start();
    wait_for_notification(&notify, "READY=1");
    net.on_client(&format!("addr del 192.0.2.10/24 dev {LINK}"));
    net.wait_for_address("192.0.2.10/24");
    net.on_client(&format!("link set {LINK} down"));
    wait_for("address and route after the link was switched off", || {
        let routes = net.on_client("-4 route show");
        routes.contains("default via 192.0.2.1").then_some(())
    });
}

#[test]
fn a_later_link_is_configured_and_may_disappear() {
    if !may_run() {
        return;
    }
    let net = Net::unconnected();
    net.use_dhcp();
    let (mut daemon, notify) = net.start();
    wait_for_notification(&notify, "READY=1");
    let problems = net.status().unwrap().problems;
    assert!(problems[0].contains(LINK), "{problems:?}");
    for _ in 0..2 {
        net.connect();
        let server = net.serve(&["--dhcp-range=192.0.2.50,192.0.2.59,10m"]);
        net.wait_for_address("192.0.2.5");
        assert!(net.status().unwrap().problems.is_empty());
        net.on_client(&format!("link del {LINK}"));
        wait_for("the link to go from the status", || {
            net.link().is_none().then_some(())
        });
        let text = fs::read_to_string(net.path("run/resolv.conf")).unwrap();
        assert!(!text.contains("nameserver"), "{text}");
        server.end(Signal::SIGTERM);
    }
    assert!(daemon.is_running());
}

#[test]
fn a_broken_configuration_is_reported_and_does_not_stop_the_daemon() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.configure("[[network.link]]\nname = 'uplink'\ndhcpv4 = true\n");
    let (mut daemon, notify) = net.start_watched();
    wait_for_notification(&notify, "READY=1");
    daemon.wait_for_line(0, &["WARN", "host.toml:3", "did you mean \"dhcp4\"?"]);
    let problems = net.status().unwrap().problems;
    assert!(problems[0].contains("host.toml:3"), "{problems:?}");
    assert!(daemon.is_running());
    // It sends signs of life even if it has nothing to do.
    for _ in 0..3 {
        wait_for_notification(&notify, "WATCHDOG=1");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    let daemon = env!("CARGO_BIN_EXE_netcfg");
    for arguments in [&["--bananas"][..], &["--run"]] {
        let output = std::process::Command::new(daemon)
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("usage: netcfg"), "{words}");
    }
}
