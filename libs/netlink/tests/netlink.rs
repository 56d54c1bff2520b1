//! Real links, addresses, routes, rules and neighbours, in network namespaces of the tests' own.
//! Each namespace goes with its links when its value is dropped.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use keelson_netlink::{
    Address, IpPrefix, LinkKind, Namespace, Neighbour, Netlink, NewLink, Route, RouteProtocol,
    Rule, TABLE_MAIN,
};
use tokio::runtime::Runtime;

/// Connects to a namespace and creates a link `d0` in it that is up and has 192.0.2.1/24. Its
/// other end is `d1`.
async fn connect(namespace: &Namespace) -> (Netlink, u32) {
    let netlink = Netlink::connect_in(namespace.as_fd()).unwrap();
    let kind = LinkKind::Veth {
        peer: "d1",
        namespace: None,
    };
    netlink
        .create_link(NewLink { name: "d0", kind })
        .await
        .unwrap();
    let index = netlink.link("d0").await.unwrap().index;
    netlink.set_up(index).await.unwrap();
    let other = netlink.link("d1").await.unwrap().index;
    netlink.set_up(other).await.unwrap();
    netlink.set_address(&address(index)).await.unwrap();
    (netlink, index)
}

fn address(link: u32) -> Address {
    Address {
        link,
        prefix: prefix("192.0.2.1/24"),
        protocol: 99,
        lifetime: None,
    }
}

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

/// Runs a test if the machine allows it.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Namespace) -> F) {
    if keelson_testing::is_root() {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(test(Namespace::create().unwrap()));
    }
}

#[test]
fn a_namespace_is_apart_from_the_machine() {
    run(|namespace| async move {
        let (netlink, _) = connect(&namespace).await;
        let names: Vec<_> = netlink.links().await.unwrap();
        let names: Vec<_> = names.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo", "d1", "d0"]);
        let here = Netlink::connect().unwrap();
        assert!(here.link("d0").await.is_err());
        // A process started inside is in the namespace.
        let list = || Command::new("cat").arg("/proc/net/dev").output();
        let output = namespace.run(list).unwrap().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("d0:"));
        let output = list().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains(" d0:"));
    });
}

#[test]
fn links_are_created_changed_and_removed() {
    run(|namespace| async move {
        let (netlink, index) = connect(&namespace).await;
        let link = netlink.link("d0").await.unwrap();
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert!(link.ethernet && link.up && !link.loopback);
        netlink.set_mtu(index, 1400).await.unwrap();
        netlink.set_down(index).await.unwrap();
        netlink.rename(index, "d2").await.unwrap();
        let kind = LinkKind::Bridge;
        netlink
            .create_link(NewLink { name: "br0", kind })
            .await
            .unwrap();
        let bridge = netlink.link("br0").await.unwrap();
        netlink
            .set_controller(index, Some(bridge.index))
            .await
            .unwrap();
        let link = netlink.link("d2").await.unwrap();
        assert_eq!((link.index, link.mtu, link.up), (index, 1400, false));
        assert_eq!(link.controller, Some(bridge.index));
        netlink.set_controller(index, None).await.unwrap();
        assert_eq!(netlink.link("d2").await.unwrap().controller, None);
        let taken = netlink.create_link(NewLink { name: "d2", kind }).await;
        let error = taken.unwrap_err();
        assert_eq!(error.errno(), Some(17), "{error}");
        assert!(error.to_string().contains("create link d2"), "{error}");
        netlink.remove_link(index).await.unwrap();
        netlink.remove_link(index).await.unwrap();
        assert!(netlink.link("d2").await.unwrap_err().is_not_found());
    });
}

#[test]
fn a_veth_pair_joins_two_namespaces() {
    run(|namespace| async move {
        let other = Namespace::create().unwrap();
        let here = Netlink::connect_in(namespace.as_fd()).unwrap();
        let there = Netlink::connect_in(other.as_fd()).unwrap();
        let kind = LinkKind::Veth {
            peer: "right",
            namespace: Some(other.as_fd()),
        };
        let name = "left";
        here.create_link(NewLink { name, kind }).await.unwrap();
        let left = here.link("left").await.unwrap().index;
        let right = there.link("right").await.unwrap().index;
        here.set_up(left).await.unwrap();
        there.set_up(right).await.unwrap();
        assert!(here.link("left").await.unwrap().carrier);
        // An end can move to another namespace.
        there.move_to(right, namespace.as_fd()).await.unwrap();
        assert!(there.link("right").await.is_err());
        assert!(!here.link("right").await.unwrap().up);
    });
}

#[test]
fn addresses_and_routes_are_set_and_removed() {
    run(|namespace| async move {
        let (netlink, index) = connect(&namespace).await;
        let of_link = |found: Vec<Address>| -> Vec<Address> {
            let mut found = found;
            found.retain(|address| address.link == index && address.prefix.address.is_ipv4());
            found
        };
        let found = of_link(netlink.addresses().await.unwrap());
        assert_eq!(found, [address(index)]);
        let short = Address {
            lifetime: Some(1000),
            ..address(index)
        };
        netlink.set_address(&short).await.unwrap();
        let found = of_link(netlink.addresses().await.unwrap());
        assert!(
            found[0].lifetime.is_some_and(|left| left > 900),
            "{found:?}"
        );

        let route = Route {
            table: TABLE_MAIN,
            link: index,
            destination: prefix("198.51.100.0/24"),
            gateway: Some("192.0.2.254".parse().unwrap()),
            metric: 7,
            source: Some("192.0.2.1".parse().unwrap()),
            protocol: RouteProtocol::Static,
        };
        netlink.set_route(&route).await.unwrap();
        netlink.set_route(&route).await.unwrap();
        let other = Route {
            table: 1000,
            gateway: None,
            ..route.clone()
        };
        netlink.set_route(&other).await.unwrap();
        let routes = netlink.routes().await.unwrap();
        assert!(
            routes.contains(&route) && routes.contains(&other),
            "{routes:?}"
        );
        netlink.remove_route(&route).await.unwrap();
        netlink.remove_route(&route).await.unwrap();
        let routes = netlink.routes().await.unwrap();
        assert!(
            !routes.contains(&route) && routes.contains(&other),
            "{routes:?}"
        );
        let mixed = Route {
            gateway: Some("fe80::1".parse().unwrap()),
            ..route
        };
        let error = netlink.set_route(&mixed).await.unwrap_err();
        assert!(error.to_string().contains("198.51.100.0/24"), "{error}");

        netlink.remove_address(index, short.prefix).await.unwrap();
        netlink.remove_address(index, short.prefix).await.unwrap();
        assert!(of_link(netlink.addresses().await.unwrap()).is_empty());
    });
}

#[test]
fn rules_and_neighbours_are_set_and_removed() {
    run(|namespace| async move {
        let (netlink, index) = connect(&namespace).await;
        let rule = Rule {
            priority: 500,
            source: Some(prefix("192.0.2.0/24")),
            destination: None,
            mark: Some(5),
            table: 1000,
            ipv6: false,
        };
        netlink.add_rule(&rule).await.unwrap();
        assert!(netlink.rules().await.unwrap().contains(&rule));
        assert!(netlink.add_rule(&rule).await.is_err());
        netlink.remove_rule(&rule).await.unwrap();
        netlink.remove_rule(&rule).await.unwrap();
        assert!(!netlink.rules().await.unwrap().contains(&rule));

        let neighbour = Neighbour {
            link: index,
            address: "192.0.2.9".parse().unwrap(),
            mac: Some([2, 0, 0, 0, 0, 9]),
            permanent: true,
        };
        netlink.set_neighbour(&neighbour).await.unwrap();
        assert!(netlink.neighbours().await.unwrap().contains(&neighbour));
        let address = neighbour.address;
        netlink.remove_neighbour(index, address).await.unwrap();
        netlink.remove_neighbour(index, address).await.unwrap();
        assert!(!netlink.neighbours().await.unwrap().contains(&neighbour));
    });
}

#[test]
fn changes_are_reported() {
    run(|namespace| async move {
        let mut monitor = Netlink::monitor_in(namespace.as_fd()).unwrap();
        connect(&namespace).await;
        let changed = tokio::time::timeout(Duration::from_secs(20), monitor.changed());
        assert!(changed.await.expect("a report"));
    });
}
