//! Queries to 127.0.0.11 reach the resolver's sockets, in network namespaces of the tests' own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use keelson_netlink::Namespace;
use keelson_nftables::{Netfilter, redirect};

/// Runs a test in a new namespace whose loopback link is on, if the machine allows it.
fn run(test: impl FnOnce() + Send) {
    if !keelson_testing::is_root() {
        return;
    }
    let namespace = Namespace::create().unwrap();
    namespace
        .run(|| {
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            test();
        })
        .unwrap();
}

fn ask_udp() -> Vec<u8> {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.connect("127.0.0.11:53").unwrap();
    client.send(b"ping").unwrap();
    let mut buffer = [0; 16];
    let length = client.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn queries_reach_the_resolver_and_the_port_stays_free() {
    run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        // A restarted resolver has other ports; the second call replaces the first one.
        for name in [b"one", b"two"] {
            let udp = UdpSocket::bind("127.0.0.11:0").unwrap();
            let tcp = TcpListener::bind("127.0.0.11:0").unwrap();
            let port = |address: std::io::Result<std::net::SocketAddr>| address.unwrap().port();
            let ports = (port(udp.local_addr()), port(tcp.local_addr()));
            redirect::install(&mut netfilter, ports.0, ports.1).unwrap();
            redirect::install(&mut netfilter, ports.0, ports.1).unwrap();
            let answer = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut buffer = [0; 16];
                    let (_, client) = udp.recv_from(&mut buffer).unwrap();
                    udp.send_to(name, client).unwrap();
                });
                ask_udp()
            });
            assert_eq!(answer, name);
            let mut client = TcpStream::connect("127.0.0.11:53").unwrap();
            let (mut server, _) = tcp.accept().unwrap();
            server.write_all(name).unwrap();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, name);
        }
        // A name server in the container can use the port, and is reached at other addresses.
        let own = UdpSocket::bind("0.0.0.0:53").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", "127.0.0.1:53").unwrap();
        own.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(own.recv(&mut [0; 4]).unwrap(), 1);
    });
}

#[test]
fn nft_shows_the_intended_rules() {
    run(|| {
        let mut netfilter = Netfilter::open().unwrap();
        redirect::install(&mut netfilter, 4000, 5000).unwrap();
        let listed = Command::new("nft").args(["list", "ruleset"]).output();
        let Ok(listed) = listed else {
            keelson_testing::skip("nft", "it shows what the kernel has");
            return;
        };
        let expected = "table ip keelson-dns {
	chain output {
		type nat hook output priority -110; policy accept;
		ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:4000
		ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:5000
	}
}
";
        assert_eq!(String::from_utf8_lossy(&listed.stdout), expected);
    });
}
