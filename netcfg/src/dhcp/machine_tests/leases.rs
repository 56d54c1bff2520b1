//! Values of a lease that are accepted, replaced or refused.

use super::*;

#[test]
fn garbage_offers_are_rejected_and_reported_once() {
    type Change = fn(&mut v4::Message);
    let changes: [(Change, LeaseError); 10] = [
        (
            |m| {
                m.set_yiaddr(Ipv4Addr::UNSPECIFIED);
            },
            LeaseError::Address(Ipv4Addr::UNSPECIFIED),
        ),
        (
            |m| {
                m.set_yiaddr(Ipv4Addr::LOCALHOST);
            },
            LeaseError::Address(Ipv4Addr::LOCALHOST),
        ),
        (
            |m| {
                m.set_yiaddr([224, 0, 0, 5]);
            },
            LeaseError::Address(Ipv4Addr::new(224, 0, 0, 5)),
        ),
        (
            |m| {
                m.set_yiaddr([192, 0, 2, 255]);
            },
            LeaseError::Address(Ipv4Addr::new(192, 0, 2, 255)),
        ),
        (
            |m| drop(m.opts_mut().remove(OptionCode::AddressLeaseTime)),
            LeaseError::NoTime,
        ),
        (
            |m| drop(m.opts_mut().insert(DhcpOption::AddressLeaseTime(3))),
            LeaseError::Short(3),
        ),
        (
            |m| drop(m.opts_mut().remove(OptionCode::ServerIdentifier)),
            LeaseError::Server,
        ),
        (
            |m| {
                let wrong = DhcpOption::ServerIdentifier(Ipv4Addr::BROADCAST);
                m.opts_mut().insert(wrong);
            },
            LeaseError::Server,
        ),
        (
            |m| {
                let wrong = DhcpOption::SubnetMask(Ipv4Addr::new(255, 0, 255, 0));
                m.opts_mut().insert(wrong);
            },
            LeaseError::Mask(Ipv4Addr::new(255, 0, 255, 0)),
        ),
        (
            |m| {
                let wrong = DhcpOption::SubnetMask(Ipv4Addr::new(128, 0, 0, 0));
                m.opts_mut().insert(wrong);
            },
            LeaseError::Mask(Ipv4Addr::new(128, 0, 0, 0)),
        ),
    ];
    for (change, error) in changes {
        let mut bench = Bench::new(None);
        bench.up();
        bench.answer(MessageType::Offer, change);
        bench.answer(MessageType::Offer, change);
        assert_eq!(bench.notices(), [Notice::Rejected(error)]);
        assert_eq!(bench.state(), StateName::Selecting);
    }
}

#[test]
fn wrong_optional_values_are_ignored() {
    let mut bench = Bench::new(None);
    bench.up();
    let change = |message: &mut v4::Message| {
        let options = message.opts_mut();
        // Not on the link, our own address, not a host; then the right one.
        options.insert(DhcpOption::Router(vec![
            Ipv4Addr::new(203, 0, 113, 1),
            ADDRESS,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(192, 0, 2, 254),
        ]));
        options.insert(DhcpOption::DomainNameServer(vec![
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(224, 0, 0, 251),
            Ipv4Addr::new(192, 0, 2, 53),
            Ipv4Addr::new(192, 0, 2, 53),
        ]));
        options.insert(DhcpOption::DomainName(
            "good.example bad\nnameserver;203.0.113.9 -x".into(),
        ));
        options.insert(DhcpOption::InterfaceMtu(68));
        options.insert(DhcpOption::Hostname("$(reboot)".into()));
        options.insert(DhcpOption::Renewal(9999));
        options.insert(DhcpOption::Rebinding(0));
    };
    bench.answer(MessageType::Offer, change);
    bench.answer(MessageType::Ack, change);
    bench.pass(5);
    let lease = bound_lease(&bench.out).unwrap();
    let gateways: Vec<_> = lease.routes.iter().map(|route| route.gateway).collect();
    assert_eq!(gateways, [Some(Ipv4Addr::new(192, 0, 2, 254))]);
    assert_eq!(lease.nameservers, [Ipv4Addr::new(192, 0, 2, 53)]);
    assert_eq!(lease.search, ["good.example", "bad"]);
    assert_eq!((lease.mtu, lease.hostname.as_deref()), (None, None));
    assert_eq!((lease.renew, lease.rebind), (1800, 3150));
    // It is reported to the operator.
    let told = Notice::LeftOut(vec![
        LeftOut::Mtu(68),
        LeftOut::Router(ADDRESS),
        LeftOut::Router(Ipv4Addr::BROADCAST),
        LeftOut::Server(Ipv4Addr::UNSPECIFIED),
        LeftOut::Server(Ipv4Addr::new(224, 0, 0, 251)),
    ]);
    assert_eq!(bench.notices(), [told]);
}

/// The routes of an answer, as text.
fn leased_routes(change: impl Fn(&mut v4::Message)) -> Vec<String> {
    let mut bench = Bench::new(None);
    bench.up();
    bench.answer(MessageType::Offer, &change);
    bench.answer(MessageType::Ack, &change);
    bench.pass(5);
    let words = |route: &LeaseRoute| match route.gateway {
        Some(gateway) => format!("{}/{} via {gateway}", route.destination, route.prefix),
        None => format!("{}/{}", route.destination, route.prefix),
    };
    bound_lease(&bench.out)
        .unwrap()
        .routes
        .iter()
        .map(words)
        .collect()
}

#[test]
fn a_router_outside_of_the_prefix_gets_a_route_of_its_own() {
    let outside = Ipv4Addr::new(198, 51, 100, 1);
    let inside = Ipv4Addr::new(192, 0, 2, 49);
    let routes = |prefix: u32, routers: Vec<Ipv4Addr>| {
        leased_routes(move |message| {
            let mask = Ipv4Addr::from_bits(u32::MAX << (32 - prefix));
            message.opts_mut().insert(DhcpOption::SubnetMask(mask));
            message
                .opts_mut()
                .insert(DhcpOption::Router(routers.clone()));
        })
    };
    for prefix in [28, 30, 32] {
        assert_eq!(
            routes(prefix, vec![outside]),
            ["198.51.100.1/32", "0.0.0.0/0 via 198.51.100.1"]
        );
    }
    // The first usable one; those in the prefix come before others.
    assert_eq!(
        routes(28, vec![ADDRESS, outside, Ipv4Addr::new(198, 51, 100, 2)]),
        ["198.51.100.1/32", "0.0.0.0/0 via 198.51.100.1"]
    );
    assert_eq!(
        routes(28, vec![outside, inside]),
        ["0.0.0.0/0 via 192.0.2.49"]
    );
    assert_eq!(
        routes(28, vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST]),
        [""; 0]
    );
}

#[test]
fn a_mask_that_is_missing_or_zero_is_made_from_the_address() {
    for change in [
        (|m| drop(m.opts_mut().remove(OptionCode::SubnetMask))) as fn(&mut v4::Message),
        |m| {
            drop(
                m.opts_mut()
                    .insert(DhcpOption::SubnetMask(Ipv4Addr::UNSPECIFIED)),
            )
        },
    ] {
        let mut bench = Bench::new(None);
        bench.up();
        bench.answer(MessageType::Offer, change);
        bench.answer(MessageType::Ack, change);
        bench.pass(5);
        assert_eq!(bound_lease(&bench.out).unwrap().prefix, 24);
    }
}

#[test]
fn times_that_contradict_each_other_are_replaced() {
    for (seconds, renew, rebind, expected) in [
        (3600, None, None, (1800, 3150)),
        (3600, Some(3000), Some(2000), (1800, 2000)),
        (3600, Some(0), Some(0), (1800, 3150)),
        (3600, Some(INFINITE), Some(INFINITE), (1800, 3150)),
        (3600, Some(900), None, (900, 3150)),
        (3600, None, Some(600), (300, 600)),
        (10, None, None, (5, 7)),
        (INFINITE, Some(60), Some(90), (INFINITE, INFINITE)),
    ] {
        let change = |message: &mut v4::Message| {
            let options = message.opts_mut();
            options.insert(DhcpOption::AddressLeaseTime(seconds));
            let renew = renew.map(DhcpOption::Renewal);
            for option in renew.into_iter().chain(rebind.map(DhcpOption::Rebinding)) {
                options.insert(option);
            }
        };
        let mut bench = Bench::new(None);
        bench.up();
        bench.answer(MessageType::Offer, change);
        bench.answer(MessageType::Ack, change);
        bench.pass(2);
        let lease = bound_lease(&bench.out).unwrap();
        assert_eq!(
            (lease.renew, lease.rebind),
            expected,
            "{seconds} {renew:?} {rebind:?}"
        );
    }
}

#[test]
fn options_of_impossible_length_are_left_out() {
    // Some decoders of the codec assert or underflow on these.
    for option in [
        &[81u8, 1, 0][..],
        &[151, 0],
        &[152, 1, 0],
        &[80, 1, 0],
        &[121, 2, 33, 1],
        &[119, 3, 0xc0, 0, 0],
        &[1, 3, 255, 255, 255],
        &[52, 0],
    ] {
        let mut bench = Bench::new(None);
        bench.up();
        let mut bytes = reply(&bench.last_request(), MessageType::Offer, |_| {});
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        assert_eq!(bytes.pop(), Some(255));
        bytes.extend(option);
        bytes.push(255);
        bench.hear(&bytes);
        assert_eq!(bench.state(), StateName::Requesting, "{option:?}");
    }
}

#[test]
fn classless_routes_replace_the_router() {
    let route = |network: &str, router: [u8; 4]| (network.parse().unwrap(), router.into());
    let change = |message: &mut v4::Message| {
        message
            .opts_mut()
            .insert(DhcpOption::ClasslessStaticRoute(vec![
                route("198.51.100.0/24", [203, 0, 113, 7]),
                route("0.0.0.0/0", [192, 0, 2, 2]),
                route("203.0.113.0/24", [0, 0, 0, 0]),
                route("10.0.0.0/8", [172, 16, 0, 1]),
                route("224.0.0.0/4", [192, 0, 2, 2]),
                route("172.31.0.1/32", [172, 31, 0, 1]),
            ]));
    };
    assert_eq!(
        leased_routes(change),
        [
            "203.0.113.0/24",
            "172.16.0.1/32",
            "172.31.0.1/32",
            "198.51.100.0/24 via 203.0.113.7",
            "0.0.0.0/0 via 192.0.2.2",
            // A router outside of all of these is assumed to be on the link, too.
            "10.0.0.0/8 via 172.16.0.1",
        ]
    );
}
