//! Test data shared by the tests of this crate; the machine's own tests follow.

use std::net::Ipv4Addr;

use super::lease::{Lease, LeaseRoute};

/// A lease of one hour.
pub(crate) fn lease() -> Lease {
    Lease {
        address: Ipv4Addr::new(192, 0, 2, 50),
        prefix: 24,
        server: Ipv4Addr::new(192, 0, 2, 1),
        routes: vec![LeaseRoute {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        }],
        nameservers: vec![Ipv4Addr::new(192, 0, 2, 53)],
        search: vec!["lan.example".into()],
        ntp_servers: vec![Ipv4Addr::new(192, 0, 2, 123)],
        mtu: None,
        hostname: None,
        seconds: 3600,
        renew: 1800,
        rebind: 3150,
    }
}
