//! Measures how long it takes to attach a container, compared with the kernel's minimum. Run it
//! alone: `cargo test --release -p hostd-networks --lib -- --ignored --nocapture bench`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use keelson_netlink::{
    Address, Batches, LinkChange, LinkId, LinkKind, Netlink, NewAddress, NewLink, Request, Route,
    RouteProtocol, Site, TABLE_MAIN, VirtualKind, VirtualLink, Worker,
};

use super::lab::*;
use crate::{Endpoint, Network};

fn default_route(index: u32) -> Route {
    Route {
        table: TABLE_MAIN,
        link: index,
        destination: keelson_model::ip::IpPrefix {
            address: [0, 0, 0, 0].into(),
            length: 0,
        },
        gateway: Some([192, 0, 2, 1].into()),
        metric: 0,
        source: None,
        protocol: RouteProtocol::Static,
    }
}

/// The minimum that makes a container reachable: no look-up, no parameters, no marks, no
/// announcement. `bridge` is known; the interface is the namespace's second link.
fn floor(site: &mut Site, bridge: u32, endpoint: &Endpoint, container: &Container) {
    let create = VirtualLink {
        controller: Some(bridge),
        ..VirtualLink::new(
            &endpoint.host_link,
            VirtualKind::Veth {
                peer: "eth0".to_owned(),
                peer_mac: endpoint.mac,
                peer_mtu: None,
            },
        )
    };
    let requests = [
        Request::CreateLink(create),
        Request::ChangeLink(name(&endpoint.host_link), LinkChange::up()),
    ];
    let fd = container.fd.as_fd();
    site.batches.run(&requests, Some(fd)).unwrap();
    let configure = |_: &mut Batches| {
        const INDEX: u32 = 2;
        let requests = [
            Request::AddAddress(NewAddress {
                link: INDEX,
                prefix: endpoint.ipv4.unwrap(),
                protocol: 0,
                link_local: false,
            }),
            Request::ChangeLink(LinkId::Index(INDEX), LinkChange::up()),
            Request::SetRoute(default_route(INDEX)),
        ];
        Batches::open().unwrap().run(&requests, None).unwrap();
    };
    site.visit(fd, configure).unwrap();
}

/// The same by the asynchronous connection, request by request.
async fn by_handle(netlink: &Netlink, bridge: u32, endpoint: &Endpoint, container: &Container) {
    let kind = LinkKind::Veth {
        peer: "eth0",
        namespace: Some(container.fd.as_fd()),
    };
    let name = &endpoint.host_link;
    netlink.create_link(NewLink { name, kind }).await.unwrap();
    let index = netlink.link(name).await.unwrap().index;
    netlink.set_controller(index, Some(bridge)).await.unwrap();
    netlink.set_up(index).await.unwrap();
    let inside = Netlink::connect_in(container.fd.as_fd()).unwrap();
    let index = inside.link("eth0").await.unwrap().index;
    let address = Address {
        link: index,
        prefix: endpoint.ipv4.unwrap(),
        protocol: 0,
        lifetime: None,
    };
    inside.set_address(&address).await.unwrap();
    inside.set_up(index).await.unwrap();
    inside.set_route(&default_route(index)).await.unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    Floor,
    Ours,
    OursWithIpv6,
    Handle,
}

fn measure(
    lab: &Lab,
    subject: Subject,
    worker: &Worker,
    netlink: &Netlink,
    v4: &Network,
    dual: &Network,
) -> (Duration, Duration) {
    let bridge = lab.link("br-a").unwrap().index;
    let container = Container::new();
    let network = if subject == Subject::OursWithIpv6 {
        dual
    } else {
        v4
    };
    let endpoint = match subject {
        Subject::OursWithIpv6 => endpoint(network, 2, &["192.0.2.2/24", "fd00:2::2/64"]),
        _ => endpoint(network, 2, &["192.0.2.2/24"]),
    };
    let begun = Instant::now();
    let container = match subject {
        Subject::Floor => {
            let endpoint = endpoint.clone();
            let job = worker.run(move |site| {
                floor(site, bridge, &endpoint, &container);
                container
            });
            lab.block_on(job).unwrap()
        }
        Subject::Ours | Subject::OursWithIpv6 => {
            lab.attach(&container, &[(network, &endpoint)]);
            container
        }
        Subject::Handle => {
            lab.block_on(by_handle(netlink, bridge, &endpoint, &container));
            container
        }
    };
    let attached = begun.elapsed();
    let begun = Instant::now();
    match subject {
        Subject::Ours | Subject::OursWithIpv6 => {
            lab.block_on(lab.kernel.detach(network, &endpoint, None))
                .unwrap();
        }
        _ => lab.run(&[Request::RemoveLink(name(&endpoint.host_link))]),
    }
    let detached = begun.elapsed();
    drop(container);
    (attached, detached)
}

#[test]
#[ignore = "a benchmark"]
fn bench() {
    let Some(lab) = Lab::new() else { return };
    let v4 = bridge('a', &[("192.0.2.0/24", Some("192.0.2.1"))]);
    let dual = dual('b');
    lab.block_on(lab.kernel.ensure(&v4)).unwrap();
    lab.block_on(lab.kernel.ensure(&dual)).unwrap();
    let worker = lab.host.run(|| Worker::start("floor")).unwrap().unwrap();
    let netlink = lab.block_on(async { Netlink::connect_in(lab.host.as_fd()).unwrap() });
    let subjects = [
        Subject::Floor,
        Subject::Ours,
        Subject::OursWithIpv6,
        Subject::Handle,
    ];
    let cases = [
        ("back to back", 200, Duration::ZERO),
        ("alone", 25, Duration::from_millis(250)),
    ];
    for (case, rounds, rest) in cases {
        let mut times = vec![Vec::new(); subjects.len()];
        for _ in 0..rounds {
            for (subject, times) in subjects.iter().zip(&mut times) {
                std::thread::sleep(rest);
                times.push(measure(&lab, *subject, &worker, &netlink, &v4, &dual));
            }
        }
        for (subject, times) in subjects.iter().zip(&mut times) {
            let figures = |pick: fn(&(Duration, Duration)) -> Duration| {
                let mut values: Vec<_> = times.iter().map(pick).collect();
                values.sort();
                let at = |percent: usize| values[(values.len() - 1) * percent / 100].as_micros();
                format!("{} / {} / {}", at(10), at(50), at(90))
            };
            println!(
                "{case:>12} {subject:?}: attach {} µs, detach {} µs (10 %, median, 90 %)",
                figures(|times| times.0),
                figures(|times| times.1),
            );
        }
    }
}

/// Measures an attach while other containers end all the time: their removal holds the kernel's
/// lock for links.
#[test]
#[ignore = "a benchmark"]
fn bench_beside_removals() {
    let Some(lab) = Lab::new() else { return };
    let network = bridge('a', &[("192.0.2.0/24", Some("192.0.2.1"))]);
    lab.block_on(lab.kernel.ensure(&network)).unwrap();
    let mut times = Vec::new();
    for round in 0..60 {
        let others: Vec<_> = (10..20).map(|number| (Container::new(), number)).collect();
        let endpoints: Vec<_> = others
            .iter()
            .map(|(_, number)| endpoint(&network, *number, &["192.0.2.9/24"]))
            .collect();
        for ((container, _), endpoint) in others.iter().zip(&endpoints) {
            lab.attach(container, &[(&network, endpoint)]);
        }
        let container = Container::new();
        let own = endpoint(&network, 2, &["192.0.2.2/24"]);
        let took = lab.block_on(async {
            let removals: Vec<_> = endpoints
                .iter()
                .map(|endpoint| {
                    let (kernel, network) = (lab.kernel.clone(), network.clone());
                    let endpoint = endpoint.clone();
                    tokio::spawn(async move { kernel.detach(&network, &endpoint, None).await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(round % 20)).await;
            let begun = Instant::now();
            let connections = [(&network, &own)];
            lab.kernel
                .attach(&container.fd, &connections, || ())
                .await
                .unwrap();
            let took = begun.elapsed();
            for removal in removals {
                removal.await.unwrap().unwrap();
            }
            took
        });
        times.push(took);
        lab.block_on(lab.kernel.detach(&network, &own, None))
            .unwrap();
    }
    times.sort();
    println!(
        "beside removals: {:?} / {:?} / {:?}",
        times[6], times[30], times[54]
    );
}
