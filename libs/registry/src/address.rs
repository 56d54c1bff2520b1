//! Facts about an address or a host name.

use std::net::IpAddr;

use crate::uri::host_of;

/// Whether an address lies within a prefix.
pub(crate) fn within(address: IpAddr, prefix: IpAddr, length: u8) -> bool {
    let (address, prefix, width) = match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128_u32),
        _ => return false,
    };
    let rest = width.saturating_sub(u32::from(length));
    (address ^ prefix).checked_shr(rest).unwrap_or(0) == 0
}

/// Whether a registry is named by a loopback address or `localhost`.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
