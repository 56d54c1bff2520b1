//! Published ports.

use serde_json::json;

use crate::common::net::Net;
use crate::common::{Host, run, wait_until};
use crate::{address, exec, gets, host, idle, inside, inspect, web};

/// Gets a page from a namespace of the test.
#[track_caller]
fn page(net: &Net, url: &str) -> Result<String, String> {
    let done = net.sh(&format!("curl -g -sS -m 3 {url}"));
    match done.code {
        0 => Ok(done.stdout.trim().to_owned()),
        _ => Err(done.stderr),
    }
}

/// The client addresses that a server has seen.
fn clients(host: &Host, name: &str) -> String {
    host.docker(&["logs", name]).stderr
}

#[test]
fn a_port_is_reached_from_everywhere() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    host.docker(&["network", "create", "other"]).ok();
    web(&host, "web", &["-p=8080:80"]);
    idle(&host, "sibling", &[]);
    idle(&host, "foreign", &["--network=other"]);
    let bound = inspect(&host, "web")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    assert_eq!(bound, json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}]));
    assert_eq!(host.docker(&["port", "web", "80"]).ok(), "0.0.0.0:8080");

    assert_eq!(
        page(&neighbour, "http://192.0.2.1:8080/"),
        Ok("web".to_owned())
    );
    wait_until("the source address is kept", || {
        clients(&host, "web").contains("192.0.2.2")
    });
    for url in [
        "http://192.0.2.1:8080/",
        "http://127.0.0.1:8080/",
        "http://172.17.0.1:8080/",
    ] {
        assert_eq!(page(host.net(), url), Ok("web".to_owned()), "{url}");
    }
    // This address is not served, and the refusal is immediate.
    let loopback = page(host.net(), "http://[::1]:8080/").unwrap_err();
    assert!(!loopback.contains("timed out"), "{loopback}");
    for from in ["web", "sibling", "foreign"] {
        for url in ["http://192.0.2.1:8080/", "http://172.17.0.1:8080/"] {
            assert_eq!(gets(&host, from, url), Ok("web".to_owned()), "{from} {url}");
        }
    }
    host.docker(&["stop", "web"]).ok();
    assert!(page(&neighbour, "http://192.0.2.1:8080/").is_err());
    assert_eq!(inspect(&host, "web")["NetworkSettings"]["Ports"], json!({}));
    host.docker(&["start", "web"]).ok();
    wait_until("it serves again", || {
        page(&neighbour, "http://192.0.2.1:8080/").is_ok()
    });
    host.docker(&["rm", "-f", "web", "sibling", "foreign"]).ok();
}

#[test]
fn over_ipv6_from_outside() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    host.docker(&["network", "create", "--ipv6", "six"]).ok();
    web(&host, "web", &["--network=six", "-p=8080:80"]);
    let url = "http://[2001:db8::1]:8080/";
    assert_eq!(page(&neighbour, url), Ok("web".to_owned()));
    wait_until("the source address is kept", || {
        clients(&host, "web").contains("2001:db8::2")
    });
    assert_eq!(page(host.net(), url), Ok("web".to_owned()));
    let own = inspect(&host, "web");
    let own = own["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"]
        .as_str()
        .unwrap()
        .to_owned();
    neighbour.sh("ip -6 route add default via 2001:db8::1").ok();
    assert!(page(&neighbour, &format!("http://[{own}]/")).is_err());
    // Packets leave the network with an address of the host.
    exec(&host, "web", "ping6 -c1 -W3 2001:db8::2").ok();
    host.docker(&["rm", "-f", "web"]).ok();
}

#[test]
fn addresses_ranges_and_any_port() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    web(&host, "local", &["-p=127.0.0.1:8080:80"]);
    assert_eq!(
        page(host.net(), "http://127.0.0.1:8080/"),
        Ok("local".to_owned())
    );
    assert!(page(&neighbour, "http://192.0.2.1:8080/").is_err());
    // A neighbour that sends packets for 127.0.0.1 over the wire.
    neighbour
        .sh(
            "ip addr flush dev lo && echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet && \
             ip route add 127.0.0.0/8 via 192.0.2.1 dev wire src 192.0.2.2",
        )
        .ok();
    assert!(page(&neighbour, "http://127.0.0.1:8080/").is_err());

    web(&host, "any", &["-p=80"]);
    let port = host.docker(&["port", "any", "80/tcp"]).ok();
    let port: u16 = port
        .lines()
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        page(&neighbour, &format!("http://192.0.2.1:{port}/")),
        Ok("any".to_owned())
    );
    for expected in [9000, 9001] {
        let name = format!("r{expected}");
        web(&host, &name, &["-p=9000-9001:80"]);
        let url = format!("http://192.0.2.1:{expected}/");
        assert_eq!(page(&neighbour, &url), Ok(name));
    }
    host.docker(&["run", "--rm", "-p=9000-9001:80", "busybox", "true"])
        .fails_with("all ports are allocated");
    host.docker(&["run", "--rm", "-p=8080:80", "busybox", "true"])
        .fails_with("port is already allocated");
    // Another program on this host has the port.
    let listen = "import socket, time\n\
        s = socket.create_server(('0.0.0.0', 7000))\n\
        time.sleep(1000)\n";
    let mut listener = host
        .net()
        .command("python3")
        .args(["-c", listen])
        .spawn()
        .unwrap();
    wait_until("it listens", || {
        host.net().sh("ss -ltn | grep -q :7000").code == 0
    });
    let held = host.docker(&["run", "--name=held", "-p=7000:80", "busybox", "true"]);
    held.fails_with("address already in use");
    listener.kill().unwrap();
    listener.wait().unwrap();
    host.docker(&["start", "-a", "held"]).ok();
    // No other program gets a published port.
    let taken = "import socket; socket.create_server(('0.0.0.0', 8080))";
    assert_ne!(
        run(host.net().command("python3").args(["-c", taken]), b"").code,
        0
    );
    let list = host.docker(&["ps", "--format={{.Names}} {{.Ports}}"]).ok();
    assert!(list.contains("local 127.0.0.1:8080->80/tcp"), "{list}");
    let published = host.docker(&["ps", "-q", "--filter=publish=80"]).ok();
    assert_eq!(published.lines().count(), 4);
    web(&host, "all", &["--expose=80", "-P"]);
    assert!(
        host.docker(&["port", "all", "80"])
            .ok()
            .contains("0.0.0.0:")
    );
    let warned = host.docker(&["run", "--rm", "--network=host", "-p=1:1", "busybox", "true"]);
    assert!(
        warned.stderr.contains("Published ports are discarded"),
        "{}",
        warned.stderr
    );
    host.docker(&["rm", "-f", "local", "any", "r9000", "r9001", "held", "all"])
        .ok();
}

#[test]
fn datagrams_reach_the_current_container() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    // It keeps sending from one port, which keeps an entry of connection tracking alive.
    let send = "import socket, time\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.bind(('', 5555))\n\
        while True:\n try: s.sendto(b'x', ('192.0.2.1', 5000))\n except OSError: pass\n time.sleep(0.05)\n";
    let mut sender = neighbour
        .command("python3")
        .args(["-c", send])
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let receive = "import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.settimeout(20)\n\
        s.bind(('', 5000))\n\
        print(s.recvfrom(9)[1][0])\n";
    for name in ["first", "second"] {
        idle(&host, name, &["-p=5000:5000/udp"]);
        let got = run(inside(&host, name, "python3").args(["-c", receive]), b"");
        assert_eq!(got.ok(), "192.0.2.2");
        host.docker(&["rm", "-f", name]).ok();
    }
    sender.kill().unwrap();
    sender.wait().unwrap();
}

#[test]
fn ports_follow_the_default_route() {
    let Some(host) = host() else { return };
    let neighbour = host.net().neighbour();
    host.docker(&["network", "create", "--internal", "inside"])
        .ok();
    host.docker(&["network", "create", "outside"]).ok();
    web(&host, "web", &["--network=inside", "-p=8080:80"]);
    assert!(page(&neighbour, "http://192.0.2.1:8080/").is_err());
    host.docker(&["network", "connect", "outside", "web"]).ok();
    assert_eq!(
        page(&neighbour, "http://192.0.2.1:8080/"),
        Ok("web".to_owned())
    );
    host.docker(&["network", "disconnect", "outside", "web"])
        .ok();
    assert!(page(&neighbour, "http://192.0.2.1:8080/").is_err());
    // The host reaches the container by the container's own address.
    let own = address(&host, "web", "inside");
    assert_eq!(
        page(host.net(), &format!("http://{own}/")),
        Ok("web".to_owned())
    );
    host.docker(&["rm", "-f", "web"]).ok();
}
