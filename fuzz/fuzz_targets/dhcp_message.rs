//! Whatever a DHCP server sends, only a lease that makes sense comes out.
#![cfg_attr(fuzzing, no_main)]

use netcfg::dhcp::lease::Lease;
use netcfg::dhcp::message::decode;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mac = bytes.get(28..34).and_then(|mac| mac.try_into().ok());
    let xid = bytes.get(4..8).and_then(|xid| xid.try_into().ok());
    let (Some(mac), Some(xid)) = (mac, xid) else {
        return;
    };
    if let Ok(reply) = decode(bytes, mac, u32::from_be_bytes(xid))
        && let Ok((lease, _)) = Lease::from_reply(&reply)
    {
        lease.check().expect("a lease that was made is good");
    }
});
