//! Batches of requests and visits of namespaces, against the kernel, in namespaces of the tests' own.

use std::os::fd::AsFd;

use keelson_netlink::{
    Batches, BridgePort, IpPrefix, LinkChange, LinkId, Macvlan, Namespace, NewAddress, Removals,
    Removed, Request, Route, RouteProtocol, TABLE_MAIN, VirtualKind, VirtualLink, Worker,
};
use tokio::runtime::Runtime;

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn name(text: &str) -> LinkId {
    LinkId::Name(text.to_owned())
}

fn veth(own: &str, peer: &str) -> VirtualLink {
    let kind = VirtualKind::Veth {
        peer: peer.to_owned(),
        peer_mac: Some([2, 0, 0, 0, 0, 7]),
        peer_mtu: Some(1400),
    };
    VirtualLink::new(own, kind)
}

/// Runs a test on a thread in a namespace of its own, if the machine allows it.
fn run(test: impl FnOnce(&mut Batches) + Send) {
    if keelson_testing::is_root() {
        let host = Namespace::create().unwrap();
        host.run(|| test(&mut Batches::open().unwrap())).unwrap();
    }
}

#[test]
fn a_bridge_with_a_port_in_another_namespace_takes_two_batches() {
    run(|batches| {
        let bridge = VirtualLink {
            mac: Some([2, 0, 0, 0, 0, 1]),
            ..VirtualLink::new("br0", VirtualKind::Bridge)
        };
        let requests = [
            Request::CreateLink(bridge),
            Request::ChangeLink(
                name("br0"),
                LinkChange {
                    alias: Some("a text".to_owned()),
                    mtu: Some(1400),
                    ..LinkChange::up()
                },
            ),
        ];
        batches.run(&requests, None).unwrap();
        let bridge = batches.find_link("br0").unwrap().unwrap();
        assert_eq!(bridge.alias.as_deref(), Some("a text"));
        assert_eq!((bridge.mtu, bridge.up), (1400, true));
        assert_eq!(bridge.mac, Some([2, 0, 0, 0, 0, 1]));

        let container = Namespace::create().unwrap();
        let port = BridgePort {
            hairpin: true,
            isolated: true,
        };
        let requests = [
            Request::CreateLink(VirtualLink {
                controller: Some(bridge.index),
                ..veth("v0", "eth0")
            }),
            Request::ChangeLink(
                name("v0"),
                LinkChange {
                    port: Some(port),
                    ..LinkChange::up()
                },
            ),
        ];
        batches.run(&requests, Some(container.as_fd())).unwrap();
        let port = batches.find_link("v0").unwrap().unwrap();
        assert_eq!(port.controller, Some(bridge.index));
        assert_eq!(port.forwards, Some(false), "the other end is off");

        let inside = container
            .run(|| {
                let mut inside = Batches::open().unwrap();
                let ids = [name("eth0"), name("eth1"), name("lo")];
                let mut found = inside.find_links(&ids).unwrap();
                assert!(found[1].is_none() && found[2].is_some(), "{found:?}");
                let eth0 = found[0].take().unwrap();
                let requests = [
                    Request::AddAddress(NewAddress {
                        link: eth0.index,
                        prefix: prefix("192.0.2.2/24"),
                        protocol: 0,
                        link_local: false,
                    }),
                    Request::ChangeLink(LinkId::Index(eth0.index), LinkChange::up()),
                    Request::SetRoute(Route {
                        table: TABLE_MAIN,
                        link: eth0.index,
                        destination: IpPrefix {
                            address: [0, 0, 0, 0].into(),
                            length: 0,
                        },
                        gateway: Some([192, 0, 2, 1].into()),
                        metric: 0,
                        source: None,
                        protocol: RouteProtocol::Static,
                    }),
                ];
                // Everything can be repeated.
                inside.run(&requests, None).unwrap();
                inside.run(&requests, None).unwrap();
                let addresses = inside.addresses().unwrap();
                let routes = inside.routes().unwrap();
                assert!(
                    addresses
                        .iter()
                        .any(|found| found.prefix == prefix("192.0.2.2/24"))
                );
                let defaults = |route: &&Route| route.destination.length == 0;
                assert_eq!(routes.iter().filter(defaults).count(), 1, "{routes:?}");
                eth0
            })
            .unwrap();
        assert_eq!(inside.mac, Some([2, 0, 0, 0, 0, 7]));
        assert_eq!(inside.mtu, 1400);
        let index = inside.parent.unwrap();
        assert_eq!(index, batches.find_link("v0").unwrap().unwrap().index);
    });
}

#[test]
fn each_request_has_its_own_result_with_the_kernels_words() {
    run(|batches| {
        let requests = [
            Request::CreateLink(veth("v0", "v1")),
            Request::CreateLink(veth("v0", "v2")),
            Request::ChangeLink(name("v9"), LinkChange::up()),
            Request::RemoveLink(name("v9")),
            Request::CreateLink(VirtualLink::new(
                "m0",
                VirtualKind::Macvlan {
                    parent: 1,
                    mode: Macvlan::Bridge,
                },
            )),
        ];
        let results = batches.try_all(&requests, None).unwrap();
        let texts: Vec<_> = results
            .iter()
            .map(|result| {
                result
                    .as_ref()
                    .map_or_else(ToString::to_string, |()| "ok".into())
            })
            .collect();
        assert_eq!(texts[0], "ok");
        assert!(texts[1].starts_with("create veth link v0: File exists"));
        assert!(texts[2].starts_with("switch link v9 on: No such device"));
        assert_eq!(texts[3], "ok");
        // Either the kernel has no macvlan, or it refuses one on the loopback link.
        assert!(
            texts[4].starts_with("create macvlan link m0: "),
            "{texts:?}"
        );
        assert!(results[2].as_ref().unwrap_err().is_not_found());
        let names: Vec<_> = batches.links().unwrap();
        let names: Vec<_> = names.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo", "v1", "v0"]);
    });
}

#[test]
fn lists_are_whole_while_links_come_and_go() {
    run(|batches| {
        let mut fixed = Vec::new();
        for number in 0..60 {
            fixed.push(Request::CreateLink(veth(
                &format!("a{number}"),
                &format!("b{number}"),
            )));
        }
        batches.run(&fixed, None).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The new thread is in the namespace of this thread.
            let changes = scope.spawn(|| {
                let mut batches = Batches::open().unwrap();
                let mut count = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let requests = [
                        Request::CreateLink(veth("x0", "x1")),
                        Request::RemoveLink(name("x0")),
                    ];
                    batches.run(&requests, None).unwrap();
                    count += 1;
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                count
            });
            for _ in 0..200 {
                let links = batches.links().unwrap();
                let fixed = |name: &str| name.starts_with('a') || name.starts_with('b');
                let count = links.iter().filter(|link| fixed(&link.name)).count();
                assert_eq!(count, 120);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(changes.join().unwrap() > 0);
        });
    });
}

#[test]
fn a_worker_visits_namespaces_and_comes_back() {
    if !keelson_testing::is_root() {
        return;
    }
    let host = Namespace::create().unwrap();
    let worker = host.run(|| Worker::start("test")).unwrap().unwrap();
    let container = Namespace::create().unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let fd = container.as_fd().try_clone_to_owned().unwrap();
        let inside = worker.run(move |site| {
            let requests = [Request::CreateLink(veth("v0", "eth0"))];
            site.batches.run(&requests, Some(fd.as_fd())).unwrap();
            let devices = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let inside = site.visit(fd.as_fd(), |_| devices()).unwrap();
            (inside, devices())
        });
        let (inside, outside) = inside.await.unwrap();
        assert!(
            inside.contains("eth0:") && !inside.contains("v0:"),
            "{inside}"
        );
        assert!(
            outside.contains("v0:") && !outside.contains("eth0:"),
            "{outside}"
        );

        // A job that panics ends its thread. The next job gets a new one in the same namespace.
        let fd = container.as_fd().try_clone_to_owned().unwrap();
        let failed = worker
            .run(move |site| site.visit(fd.as_fd(), |_| std::panic::resume_unwind(Box::new(()))));
        let failed: Result<Result<(), _>, _> = failed.await;
        assert!(failed.is_err());
        let mut found = None;
        for _ in 0..100 {
            // The thread may still be ending.
            if let Ok(link) = worker.run(|site| site.batches.find_link("v0")).await {
                found = link.unwrap();
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(found.is_some());
    });
}

#[test]
fn links_that_vanish_are_reported() {
    if !keelson_testing::is_root() {
        return;
    }
    let host = Namespace::create().unwrap();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut removals = Removals::open_in(host.as_fd()).unwrap();
        let index = host
            .run(|| {
                let mut batches = Batches::open().unwrap();
                let requests = [
                    Request::CreateLink(VirtualLink::new("br0", VirtualKind::Bridge)),
                    Request::CreateLink(veth("v0", "v1")),
                ];
                batches.run(&requests, None).unwrap();
                let index = batches.find_link("br0").unwrap().unwrap().index;
                let requests = [Request::RemoveLink(name("br0"))];
                batches.run(&requests, None).unwrap();
                index
            })
            .unwrap();
        let limit = std::time::Duration::from_secs(20);
        let removed = tokio::time::timeout(limit, removals.next()).await;
        assert_eq!(
            removed.expect("a report").unwrap(),
            Removed::Links(vec![index])
        );
    });
}
