//! A hostile DHCP server: answers every request with malformed or absurd packets.

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{Net, may_run, wait_for, wait_for_notification};
use keelson_sys::packet::{BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, PacketSocket};
use netcfg::dhcp::udp;

/// Small deterministic random numbers.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// An IP packet from a server with correct checksums: the ports of a client's packet are exchanged.
fn packet(payload: &[u8]) -> Vec<u8> {
    let mut packet = udp::build(Ipv4Addr::new(192, 0, 2, 66), payload).unwrap();
    packet.swap(21, 23);
    packet
}

/// The header of an answer to the client's message, up to the magic number.
fn header(request: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut reply = vec![0; 240];
    reply[..12].copy_from_slice(&request[..12]);
    reply[0] = 2;
    reply[16..20].copy_from_slice(&address);
    reply[28..44].copy_from_slice(&request[28..44]);
    reply[236..240].copy_from_slice(&[99, 130, 83, 99]);
    reply
}

/// Absurd answers to one message of the client.
fn answers(request: &[u8], noise: &mut Noise) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let server = [54, 4, 192, 0, 2, 66];
    let lease = [51, 4, 0, 0, 14, 16];
    // An offer and an acknowledgement of every address that no machine can have.
    for address in [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 1, 2, 3],
        [255, 255, 255, 255],
        [192, 0, 2, 0],
        [192, 0, 2, 255],
    ] {
        for kind in [2, 5] {
            let mut reply = header(request, address);
            reply.extend([53, 1, kind, 1, 4, 255, 255, 255, 0]);
            reply.extend(server);
            reply.extend(lease);
            reply.push(255);
            out.push(reply);
        }
    }
    // Valid addresses with absurd masks, times and servers.
    for options in [
        &[1, 4, 0, 0, 0, 0, 51, 4, 0, 0, 14, 16][..],
        &[1, 4, 255, 0, 255, 0, 51, 4, 0, 0, 14, 16],
        &[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 0, 0],
        &[1, 4, 255, 255, 255, 0],
        &[
            1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 54, 4, 255, 255, 255, 255,
        ],
    ] {
        let mut reply = header(request, [192, 0, 2, 77]);
        reply.extend([53, 1, 2]);
        reply.extend(options);
        reply.push(255);
        out.push(reply);
    }
    // Options that are cut off, or whose decoders panic; noise of all lengths.
    for code in 1..=254 {
        let mut reply = header(request, [192, 0, 2, 77]);
        reply.extend([53, 1, 2, code, 1, 0, code, 255]);
        out.push(reply);
    }
    for _ in 0..50 {
        let mut reply = header(request, [192, 0, 2, 77]);
        let length = (noise.next() % 400) as usize;
        reply.extend(noise.bytes(length));
        reply.truncate(200 + (noise.next() % 500) as usize);
        // Noise must not be a complete, valid offer by chance.
        out.push(reply);
    }
    out
}

#[test]
fn a_hostile_server_neither_stops_nor_misleads_the_client() {
    if !may_run() {
        return;
    }
    let net = Net::new();
    net.use_dhcp();
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU32::new(0));
    let index = net.server_index();
    let hostile = net.in_server({
        let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
        move || attack(index, &stop, &rounds)
    });
    let (mut daemon, notify) = net.start();
    wait_for_notification(&notify, "READY=1");
    wait_for("some rounds of the attack", || {
        (rounds.load(Ordering::Relaxed) >= 2).then_some(())
    });
    assert!(daemon.is_running());
    assert_eq!(net.addresses(), [""; 0]);
    daemon.wait_for_line(0, &["WARN", "offer rejected"]);

    // A good server beside it is still used.
    let _server = net.serve(&[
        "--dhcp-range=192.0.2.50,192.0.2.59,10m",
        "--dhcp-option=58,3",
    ]);
    let address = net.wait_for_address("192.0.2.5");
    let before = rounds.load(Ordering::Relaxed);
    wait_for("an attack on the bound client", || {
        (rounds.load(Ordering::Relaxed) >= before + 2).then_some(())
    });
    assert_eq!(net.addresses(), [address]);
    assert!(daemon.is_running());
    let lines = daemon.lines();
    assert!(
        !lines.iter().any(|line| line.contains("panicked")),
        "{lines:#?}"
    );
    stop.store(true, Ordering::Relaxed);
    hostile.join().unwrap();
}

/// Answers each of the client's messages with all absurd packets, and sends unrelated noise in
/// between.
fn attack(index: u32, stop: &AtomicBool, rounds: &AtomicU32) {
    let socket = PacketSocket::open(index, ETHERTYPE_IPV4, &[]).unwrap();
    let arp = PacketSocket::open(index, ETHERTYPE_ARP, &[]).unwrap();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let received = match socket.receive(&mut buffer) {
            Ok(received) if !received.outgoing => received,
            _ => {
                std::thread::sleep(Duration::from_millis(5));
                let length = (noise.next() % 300) as usize;
                let _ = socket.send(BROADCAST, &noise.bytes(length));
                let _ = socket.send(BROADCAST, &packet(&noise.bytes(length)));
                let _ = arp.send(BROADCAST, &noise.bytes(length % 40));
                continue;
            }
        };
        // Ports 68 → 67, a message with its fixed part.
        let request = &buffer[..received.length];
        if request.len() < 28 + 240 || request[20..24] != [0, 68, 0, 67] {
            continue;
        }
        for answer in answers(&request[28..], &mut noise) {
            let _ = socket.send(BROADCAST, &packet(&answer));
            // The same with a wrong checksum, and cut off in the headers.
            let mut wrong = packet(&answer);
            wrong[10] ^= 0x55;
            let _ = socket.send(BROADCAST, &wrong);
            let cut = (noise.next() % 40) as usize;
            let _ = socket.send(BROADCAST, &packet(&answer)[..cut]);
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}
