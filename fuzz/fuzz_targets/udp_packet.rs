//! Frames from the link, before any address is configured.
#![cfg_attr(fuzzing, no_main)]

use netcfg::dhcp::{arp, udp};

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    for pending in [false, true] {
        if let Ok(datagram) = udp::parse(bytes, pending) {
            assert!(datagram.payload.len() <= bytes.len());
        }
    }
    if let Some(packet) = arp::ArpPacket::parse(bytes) {
        assert_eq!(arp::ArpPacket::parse(&packet.to_bytes()), Some(packet));
    }
});
