//! Requests of endpoints, as values. Kinds of links that the kernel of a test may lack are only
//! tested here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keelson_netlink::{Ipvlan, IpvlanIsolation, Macvlan, Route};

use super::*;
use crate::kernel::plan::network::{BridgePlan, Make, ParentPlan};
use crate::{IpvlanFlag, IpvlanMode, MacvlanMode, Parent, ParentLink, Subnet};

fn owner() -> Owner {
    Owner::new("engine")
}

fn network(driver: Driver) -> Network {
    Network {
        id: "0123456789abcdef".repeat(4),
        name: "net".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        driver,
        internal: false,
        attachable: false,
        ipv4: true,
        ipv6: false,
        subnets: vec![Subnet {
            prefix: "192.0.2.0/24".parse().unwrap(),
            range: None,
            gateway: Some("192.0.2.1".parse().unwrap()),
            auxiliary: BTreeMap::new(),
        }],
        asked: Default::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: false,
        unreadable: None,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: "e".repeat(64),
        network: "0123456789abcdef".repeat(4),
        asked: Default::default(),
        ipv4: Some("192.0.2.2/24".parse().unwrap()),
        ipv6: None,
        gateway_ipv4: Some([192, 0, 2, 1].into()),
        gateway_ipv6: None,
        mac: Some([2, 0, 0, 0, 0, 1]),
        interface: "eth0".to_owned(),
        host_link: "veth0123456".to_owned(),
        default_ipv4: true,
        default_ipv6: true,
    }
}

fn plan(driver: Driver) -> EndpointPlan {
    let plan = EndpointPlan::of(&network(driver), &endpoint(), 1, &owner());
    plan.unwrap().unwrap()
}

fn parent<M>(link: Option<(&str, Option<(&str, u16)>)>, mode: M) -> Parent<M> {
    Parent {
        link: link.map(|(name, vlan)| ParentLink {
            name: name.to_owned(),
            vlan: vlan.map(|(on, id)| (on.to_owned(), id)),
        }),
        mode,
        mtu: Some(1400),
    }
}

fn defaults(requests: &[Request]) -> Vec<&Route> {
    let routes = requests.iter().filter_map(|request| match request {
        Request::SetRoute(route) => Some(route),
        _ => None,
    });
    routes.collect()
}

#[test]
fn a_port_is_made_in_one_request_and_switched_on_in_another() {
    let mut bridge = Bridge::new("br0");
    bridge.inter_container = false;
    let plan = plan(Driver::Bridge(bridge));
    let expected = Request::CreateLink(VirtualLink {
        mtu: Some(1450),
        controller: Some(7),
        ..VirtualLink::new(
            "veth0123456",
            VirtualKind::Veth {
                peer: "eth0".to_owned(),
                peer_mac: Some([2, 0, 0, 0, 0, 1]),
                peer_mtu: Some(1450),
            },
        )
    });
    // The bridge's MTU, since none was requested.
    assert_eq!(plan.create(7, 1450), expected);
    let Some(Request::ChangeLink(id, change)) = plan.host_up() else {
        panic!("a change")
    };
    assert_eq!(id, LinkId::Name("veth0123456".to_owned()));
    let port = BridgePort {
        hairpin: true,
        isolated: true,
    };
    assert_eq!((change.port, change.up), (Some(port), Some(true)));
    // Addresses are added before it is switched on, routes afterwards.
    let requests = plan.configure(3, true);
    assert!(matches!(&requests[0], Request::AddAddress(_)));
    assert!(matches!(&requests[1], Request::ChangeLink(..)));
    assert_eq!(defaults(&requests)[0].gateway, Some([192, 0, 2, 1].into()));
    assert_eq!(requests.len(), 3);
}

#[test]
fn macvlan_and_ipvlan_are_made_in_the_containers_namespace() {
    let modes = [
        (MacvlanMode::Bridge, Macvlan::Bridge),
        (MacvlanMode::Private, Macvlan::Private),
        (MacvlanMode::Vepa, Macvlan::Vepa),
        (MacvlanMode::Passthru, Macvlan::Passthru),
    ];
    for (asked, mode) in modes {
        let plan = plan(Driver::Macvlan(parent(Some(("eth0", None)), asked)));
        let expected = VirtualLink {
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: Some(1400),
            elsewhere: true,
            ..VirtualLink::new(plan.first_name(), VirtualKind::Macvlan { parent: 4, mode })
        };
        assert_eq!(plan.create(4, 1500), Request::CreateLink(expected));
        assert!(plan.host_up().is_none() && plan.host_settings().is_empty());
    }
    let modes = [
        (
            IpvlanMode::L2(IpvlanFlag::Bridge),
            Ipvlan::L2,
            IpvlanIsolation::Bridge,
        ),
        (
            IpvlanMode::L3(IpvlanFlag::Private),
            Ipvlan::L3,
            IpvlanIsolation::Private,
        ),
        (
            IpvlanMode::L3S(IpvlanFlag::Vepa),
            Ipvlan::L3S,
            IpvlanIsolation::Vepa,
        ),
    ];
    for (asked, mode, isolation) in modes {
        let plan = plan(Driver::Ipvlan(parent(Some(("eth0", None)), asked)));
        let kind = VirtualKind::Ipvlan {
            parent: 4,
            mode,
            isolation,
        };
        let expected = VirtualLink {
            // It shares the parent's hardware address.
            mac: None,
            mtu: Some(1400),
            elsewhere: true,
            ..VirtualLink::new(plan.first_name(), kind)
        };
        assert_eq!(plan.create(4, 1500), Request::CreateLink(expected));
    }
}

#[test]
fn default_routes_follow_the_request() {
    let gateway = |driver, gateway: Option<[u8; 4]>| {
        let endpoint = Endpoint {
            gateway_ipv4: gateway.map(Into::into),
            ..endpoint()
        };
        let plan = EndpointPlan::of(&network(driver), &endpoint, 1, &owner());
        let requests = plan.unwrap().unwrap().configure(3, true);
        let routes = defaults(&requests);
        routes.first().map(|route| route.gateway)
    };
    let on = || Some(("eth0", None));
    let given = Some([192, 0, 2, 1]);
    let macvlan = || Driver::Macvlan(parent(on(), MacvlanMode::Bridge));
    assert_eq!(gateway(macvlan(), given), Some(Some([192, 0, 2, 1].into())));
    assert_eq!(gateway(macvlan(), None), None);
    let l2 = || Driver::Ipvlan(parent(on(), IpvlanMode::L2(IpvlanFlag::Bridge)));
    assert_eq!(gateway(l2(), given), Some(Some([192, 0, 2, 1].into())));
    assert_eq!(gateway(l2(), None), None);
    // It routes by itself, so a gateway would be useless.
    for mode in [
        IpvlanMode::L3(IpvlanFlag::Bridge),
        IpvlanMode::L3S(IpvlanFlag::Bridge),
    ] {
        let l3 = || Driver::Ipvlan(parent(on(), mode));
        assert_eq!(gateway(l3(), None), Some(None));
        assert_eq!(gateway(l3(), given), Some(None));
    }
    let mut internal = network(l2());
    internal.internal = true;
    let plan = EndpointPlan::of(&internal, &endpoint(), 1, &owner())
        .unwrap()
        .unwrap();
    assert!(defaults(&plan.configure(3, true)).is_empty());
}

#[test]
fn parents_are_found_or_created() {
    let of = |link| {
        let driver = Driver::Macvlan(parent(link, MacvlanMode::Bridge));
        match HostLink::of(&network(driver), &owner()) {
            HostLink::Parent(plan) => plan,
            other => panic!("{other:?}"),
        }
    };
    let plan: ParentPlan = of(Some(("eth0", None)));
    assert_eq!((plan.link.as_str(), plan.create(0)), ("eth0", None));
    let plan = of(Some(("eth0.10", Some(("eth0", 10)))));
    assert_eq!(
        plan.make,
        Some(Make::Vlan {
            on: "eth0".to_owned(),
            id: 10
        })
    );
    let vlan = VirtualKind::Vlan { parent: 2, id: 10 };
    let expected = Request::CreateLink(VirtualLink::new("eth0.10", vlan));
    assert_eq!(plan.create(2), Some(expected));
    let plan = of(None);
    let dummy = VirtualLink::new("dm-0123456789ab", VirtualKind::Dummy);
    assert_eq!(plan.create(0), Some(Request::CreateLink(dummy)));
}

#[test]
fn a_bridge_has_the_same_hardware_address_each_time() {
    let of = || match HostLink::of(&network(Driver::Bridge(Bridge::new("br0"))), &owner()) {
        HostLink::Bridge(plan) => plan,
        other => panic!("{other:?}"),
    };
    let plan: BridgePlan = of();
    assert_eq!(plan, of());
    assert_eq!(plan.mac, [0x02, 0x01, 0x23, 0x45, 0x67, 0x89]);
    // Locally administered, and not a group address.
    assert_eq!(plan.mac[0] & 0b11, 0b10);
}

#[test]
fn names_that_the_kernel_would_change_are_refused() {
    let with = |interface: &str, host_link: &str| {
        let endpoint = Endpoint {
            interface: interface.to_owned(),
            host_link: host_link.to_owned(),
            ..endpoint()
        };
        let driver = Driver::Bridge(Bridge::new("br0"));
        EndpointPlan::of(&network(driver), &endpoint, 1, &owner()).map(drop)
    };
    with("eth0.10", "veth0123456").unwrap();
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "eth%d",
        "a b",
        "a:1",
        "0123456789abcdef",
    ] {
        let error = with(bad, "veth0").unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
        assert!(with("eth0", bad).is_err());
    }
}

#[test]
fn settings_of_the_user_come_last() {
    let mut endpoint = endpoint();
    let name = "net.ipv6.conf.IFNAME.disable_ipv6";
    endpoint
        .asked
        .sysctls
        .insert(name.to_owned(), "0".to_owned());
    let driver = Driver::Bridge(Bridge::new("br0"));
    let plan = EndpointPlan::of(&network(driver), &endpoint, 2, &owner());
    let plan = plan.unwrap().unwrap();
    let found: Vec<_> = plan
        .settings(true)
        .map(|setting| setting.value.as_str())
        .collect();
    assert_eq!(
        found,
        ["1", "2", "0"],
        "disable_ipv6, rp_filter, the user's"
    );
    assert_eq!(plan.settings(false).count(), 1);
}
