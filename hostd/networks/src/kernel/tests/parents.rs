//! Networks on links of the host: macvlan, ipvlan and VLANs.

use keelson_netlink::{LinkChange, Namespace, Request, VirtualKind, VirtualLink};

use super::lab::*;
use crate::kernel::KernelError;
use crate::{Driver, IpvlanFlag, IpvlanMode, MacvlanMode, Network, Parent, ParentLink};

const SUBNET: (&str, Option<&str>) = ("192.0.2.0/24", None);

fn parent<M>(link: Option<&str>, mode: M) -> Parent<M> {
    Parent {
        link: link.map(|name| ParentLink {
            name: name.to_owned(),
            vlan: name
                .split_once('.')
                .map(|(on, id)| (on.to_owned(), id.parse().unwrap())),
        }),
        mode,
        mtu: None,
    }
}

fn macvlan(id: char, link: Option<&str>, mode: MacvlanMode) -> Network {
    network(id, Driver::Macvlan(parent(link, mode)), &[SUBNET])
}

/// A neighbour of the host at the other end of its link `uplink`, with 192.0.2.9/24.
fn neighbour(lab: &Lab) -> Namespace {
    let neighbour = Namespace::create().unwrap();
    let kind = VirtualKind::Veth {
        peer: "up".to_owned(),
        peer_mac: None,
        peer_mtu: None,
    };
    let requests = [
        Request::CreateLink(VirtualLink::new("uplink", kind)),
        Request::ChangeLink(name("uplink"), LinkChange::up()),
    ];
    let fd = std::os::fd::AsFd::as_fd(&neighbour);
    batches(&lab.host, |batches| {
        batches.run(&requests, Some(fd)).unwrap()
    });
    let index = link(&neighbour, "up").unwrap().index;
    run(
        &neighbour,
        &[
            Request::AddAddress(keelson_netlink::NewAddress {
                link: index,
                prefix: prefix("192.0.2.9/24"),
                protocol: 0,
                link_local: false,
            }),
            Request::ChangeLink(name("up"), LinkChange::up()),
        ],
    );
    neighbour
}

/// Whether an error says that this kernel does not support a kind of links. Then the test is
/// skipped.
fn lacks(error: &KernelError) -> bool {
    let KernelError::NoKind { kind, .. } = error else {
        return false;
    };
    keelson_testing::skip(kind, error);
    true
}

#[test]
fn macvlan_containers_are_on_the_hosts_network() {
    let Some(lab) = Lab::new() else { return };
    let neighbour = neighbour(&lab);
    let network = macvlan('a', Some("uplink"), MacvlanMode::Bridge);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let (one, two) = (Container::new(), Container::new());
    let first = endpoint(&network, 2, &["192.0.2.2/24"]);
    let second = endpoint(&network, 3, &["192.0.2.3/24"]);
    match lab.try_attach(&one, &[(&network, &first)]) {
        Err(error) if lacks(&error) => return,
        other => other.unwrap(),
    }
    lab.attach(&two, &[(&network, &second)]);
    udp(&one.namespace, &two.namespace, "192.0.2.3");
    udp(&one.namespace, &neighbour, "192.0.2.9");
    udp(&neighbour, &one.namespace, "192.0.2.2");
    assert_eq!(one.link("eth0").unwrap().mac, first.mac);
    // There must be no IPv6 at all, or a router of the host's network could configure the container
    // (CVE-2024-32473). And there is no gateway without a request.
    assert_eq!(setting(&one.namespace, "ipv6/conf/eth0/disable_ipv6"), "1");
    let routes = batches(&one.namespace, |batches| batches.routes().unwrap());
    assert!(
        routes.iter().all(|route| route.destination.length > 0),
        "{routes:?}"
    );
    // A parent can have several networks.
    let other = macvlan('b', Some("uplink"), MacvlanMode::Private);
    lab.block_on(lab.kernel.ensure(&other)).unwrap();
    let third = Container::new();
    let endpoint = endpoint(&other, 4, &["192.0.2.4/24"]);
    lab.attach(&third, &[(&other, &endpoint)]);
    udp(&third.namespace, &neighbour, "192.0.2.9");
    // Containers in the private network reach no other container.
    let error = try_udp(&third.namespace, &one.namespace, "192.0.2.2").unwrap_err();
    assert!(
        is_lost(&error) || error.raw_os_error() == Some(113),
        "{error}"
    );
    // It is disconnected while it runs, and the network is removed: the parent belongs to the host.
    lab.block_on(lab.kernel.detach(&network, &first, Some(&one.fd)))
        .unwrap();
    lab.block_on(lab.kernel.detach(&network, &first, Some(&one.fd)))
        .unwrap();
    assert!(one.link("eth0").is_none());
    lab.block_on(lab.kernel.detach(&network, &second, None))
        .unwrap();
    lab.block_on(lab.kernel.remove(&network)).unwrap();
    assert!(lab.link("uplink").is_some());
}

#[test]
fn macvlan_has_its_modes_and_a_gateway_when_one_is_given() {
    let Some(lab) = Lab::new() else { return };
    let neighbour = neighbour(&lab);
    for (id, mode) in [('a', MacvlanMode::Vepa), ('b', MacvlanMode::Passthru)] {
        let mut network = macvlan(id, Some("uplink"), mode);
        network.subnets[0].gateway = Some("192.0.2.9".parse().unwrap());
        let container = Container::new();
        let endpoint = endpoint(&network, 2, &["192.0.2.2/24"]);
        match lab.try_attach(&container, &[(&network, &endpoint)]) {
            Err(error) if lacks(&error) => return,
            other => other.unwrap(),
        }
        udp(&container.namespace, &neighbour, "192.0.2.9");
        let routes = batches(&container.namespace, |batches| batches.routes().unwrap());
        let mut defaults = routes.iter().filter(|route| route.destination.length == 0);
        let gateway = defaults.next().and_then(|route| route.gateway);
        assert_eq!(gateway, Some("192.0.2.9".parse().unwrap()));
        // In passthru mode one container occupies the parent, which is free again at once.
        lab.block_on(lab.kernel.detach(&network, &endpoint, Some(&container.fd)))
            .unwrap();
        lab.attach(&container, &[(&network, &endpoint)]);
        lab.block_on(lab.kernel.detach(&network, &endpoint, Some(&container.fd)))
            .unwrap();
    }
}

#[test]
fn a_parent_that_is_off_does_not_stop_a_start() {
    let Some(lab) = Lab::new() else { return };
    let _neighbour = neighbour(&lab);
    let off = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    lab.run(&[Request::ChangeLink(name("uplink"), off)]);
    let network = macvlan('a', Some("uplink"), MacvlanMode::Bridge);
    let container = Container::new();
    let mut endpoint = endpoint(&network, 2, &["192.0.2.2/24"]);
    endpoint.gateway_ipv4 = Some("192.0.2.9".parse().unwrap());
    match lab.try_attach(&container, &[(&network, &endpoint)]) {
        Err(error) if lacks(&error) => return,
        other => other.unwrap(),
    }
    lab.run(&[Request::ChangeLink(name("uplink"), LinkChange::up())]);
    udp(&container.namespace, &_neighbour, "192.0.2.9");
}

#[test]
fn impossible_parents_are_refused() {
    let Some(lab) = Lab::new() else { return };
    let ensure = |network: &Network| lab.block_on(lab.kernel.ensure(network));
    let error = ensure(&macvlan('a', Some("lo"), MacvlanMode::Bridge)).unwrap_err();
    let text = "loopback interface is not a valid macvlan parent link";
    assert_eq!(error.to_string(), text);
    let mode = IpvlanMode::L3(IpvlanFlag::Bridge);
    let on_vlan = network('b', Driver::Ipvlan(parent(Some("lo.5"), mode)), &[SUBNET]);
    let error = ensure(&on_vlan).unwrap_err();
    assert_eq!(error.to_string(), text.replace("macvlan", "ipvlan"));
    for missing in ["eth7", "eth7.10"] {
        let error = ensure(&macvlan('c', Some(missing), MacvlanMode::Bridge)).unwrap_err();
        assert!(error.to_string().contains("eth7 does not exist"), "{error}");
    }
}

#[test]
fn parents_that_we_created_are_removed() {
    let Some(lab) = Lab::new() else { return };
    let _neighbour = neighbour(&lab);
    let cases = [(Some("uplink.10"), "uplink.10"), (None, "dm-aaaaaaaaaaaa")];
    for (link, made) in cases {
        let network = macvlan('a', link, MacvlanMode::Bridge);
        match lab.block_on(lab.kernel.ensure(&network)) {
            Err(error) if lacks(&error) => {
                let text = error.to_string();
                assert!(
                    text.contains(made) && text.contains("the kernel has no"),
                    "{text}"
                );
                continue;
            }
            other => other.unwrap(),
        }
        lab.block_on(lab.kernel.ensure(&network)).unwrap();
        assert!(lab.link(made).unwrap().up);
        let (one, two) = (Container::new(), Container::new());
        let first = endpoint(&network, 2, &["192.0.2.2/24"]);
        let second = endpoint(&network, 3, &["192.0.2.3/24"]);
        lab.attach(&one, &[(&network, &first)]);
        lab.attach(&two, &[(&network, &second)]);
        udp(&one.namespace, &two.namespace, "192.0.2.3");
        lab.block_on(lab.kernel.remove(&network)).unwrap();
        assert!(lab.link(made).is_none());
    }
}

#[test]
fn ipvlan_in_all_modes() {
    let Some(lab) = Lab::new() else { return };
    let neighbour = neighbour(&lab);
    for mode in [
        IpvlanMode::L2(IpvlanFlag::Bridge),
        IpvlanMode::L3(IpvlanFlag::Bridge),
        IpvlanMode::L3S(IpvlanFlag::Bridge),
    ] {
        let driver = Driver::Ipvlan(parent(Some("uplink"), mode));
        let network = network('a', driver, &[SUBNET]);
        let (one, two) = (Container::new(), Container::new());
        let first = endpoint(&network, 2, &["192.0.2.2/24"]);
        let second = endpoint(&network, 3, &["192.0.2.3/24"]);
        match lab.try_attach(&one, &[(&network, &first)]) {
            Err(error) if lacks(&error) => return,
            other => other.unwrap(),
        }
        lab.attach(&two, &[(&network, &second)]);
        udp(&one.namespace, &two.namespace, "192.0.2.3");
        if matches!(mode, IpvlanMode::L2(_)) {
            udp(&one.namespace, &neighbour, "192.0.2.9");
        }
        for (endpoint, container) in [(&first, &one), (&second, &two)] {
            let detached = lab.kernel.detach(&network, endpoint, Some(&container.fd));
            lab.block_on(detached).unwrap();
        }
    }
}
