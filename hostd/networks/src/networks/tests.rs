use std::path::Path;

use super::*;
use crate::types::NetworkAction;

async fn open(base: &Path) -> Networks {
    Networks::open(NetworkOptions::below(base)).await.unwrap()
}

/// Runs a test in a network namespace of its own, with all threads of the runtime.
fn in_namespace(test: impl Future<Output = ()> + Send) {
    if !keelson_testing::is_root() {
        return;
    }
    let namespace = keelson_netlink::Namespace::create().unwrap();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test);
    };
    namespace.run(run).unwrap();
}

fn named(name: &str) -> NewNetwork {
    NewNetwork {
        name: name.to_owned(),
        ..NewNetwork::default()
    }
}

fn to(network: &str) -> ConnectionSpec {
    ConnectionSpec {
        network: network.to_owned(),
        ..ConnectionSpec::default()
    }
}

#[test]
fn networks_come_and_go() {
    in_namespace(async {
        let base = tempfile::tempdir().unwrap();
        let networks = open(base.path()).await;
        assert!(networks.has_default_bridge());
        let mut events = networks.subscribe();
        for name in ["used", "unused", "other"] {
            networks.create(named(name)).await.unwrap();
        }
        networks.0.store.reserve("c", "web", &[to("used")]).unwrap();
        let pruned = networks.prune(|network| network.name != "other").await;
        assert_eq!(pruned.unwrap(), ["unused"]);
        assert!(networks.remove("used").await.is_err());
        networks.0.store.release_all("c");
        networks.remove("used").await.unwrap();
        let mut actions = Vec::new();
        while let Ok(event) = events.try_recv() {
            actions.push(event.action);
        }
        assert_eq!(
            actions,
            [
                NetworkAction::Create,
                NetworkAction::Create,
                NetworkAction::Create,
                NetworkAction::Destroy,
                NetworkAction::Prune,
                NetworkAction::Destroy,
            ]
        );
        let names: Vec<_> = networks.list().iter().map(|one| one.name.clone()).collect();
        assert_eq!(names, ["bridge", "host", "none", "other"]);
    });
}

/// Forwarding in a new namespace: whether the filter drops packets that do not belong to
/// containers, by IPv4 and by IPv6, once networks of a family are needed.
async fn dropped(base: &Path, ipv6: bool) -> (bool, bool) {
    let networks = open(base).await;
    if ipv6 && networks.find("six").is_err() {
        let new = NewNetwork {
            ipv6: Some(true),
            ..named("six")
        };
        networks.create(new).await.unwrap();
    }
    let transit = networks.0.parts().await.unwrap().firewall.transit();
    (transit.drop_ipv4, transit.drop_ipv6)
}

fn forwarding(ipv6: bool) -> &'static str {
    match ipv6 {
        false => "/proc/sys/net/ipv4/ip_forward",
        true => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

/// Each family is decided separately, and a restart decides the same.
#[test]
fn who_forwards_is_known_for_each_family() {
    for (ipv4, ipv6) in [("0", "0"), ("1", "0"), ("0", "1"), ("1", "1")] {
        in_namespace(async move {
            let base = tempfile::tempdir().unwrap();
            std::fs::write(forwarding(false), ipv4).unwrap();
            std::fs::write(forwarding(true), ipv6).unwrap();
            let drops_ipv4 = ipv4 == "0";
            assert_eq!(dropped(base.path(), false).await, (drops_ipv4, false));
            let six = std::fs::read_to_string(forwarding(true)).unwrap();
            assert_eq!(six.trim(), ipv6, "nobody needs it");
            let both = (drops_ipv4, ipv6 == "0");
            assert_eq!(dropped(base.path(), true).await, both);
            assert_eq!(dropped(base.path(), true).await, both);
            for ipv6 in [false, true] {
                let now = std::fs::read_to_string(forwarding(ipv6)).unwrap();
                assert_eq!(now.trim(), "1");
            }
        });
    }
}

/// An engine that died before it switched on forwarding has recorded its intention.
#[test]
fn a_crash_before_forwarding_does_not_make_a_router() {
    in_namespace(async {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(forwarding(false), "0").unwrap();
        std::fs::write(forwarding(true), "0").unwrap();
        // At each switch, the record exists and the filter drops.
        assert_eq!(dropped(base.path(), true).await, (true, true));
        assert_eq!(dropped(base.path(), true).await, (true, true));
        // The moment after the notes.
        std::fs::write(forwarding(false), "0").unwrap();
        std::fs::write(forwarding(true), "0").unwrap();
        assert_eq!(dropped(base.path(), true).await, (true, true));
        assert_eq!(std::fs::read_to_string(forwarding(true)).unwrap(), "1\n");
        // Without the notes it is somebody else's.
        for note in ["forwarding-ipv4", "forwarding-ipv6"] {
            std::fs::remove_file(base.path().join("run").join(note)).unwrap();
        }
        assert_eq!(dropped(base.path(), true).await, (false, false));
    });
}

/// Whatever opens the networks first, and before any container can be started anew.
#[test]
fn links_of_what_is_gone_are_removed_when_networks_are_opened() {
    in_namespace(async {
        let base = tempfile::tempdir().unwrap();
        let links = || {
            let batches = keelson_netlink::Batches::open();
            let links = batches.unwrap().links().unwrap().into_iter();
            let names = links.map(|link| link.name);
            names.filter(|name| name.starts_with("br-")).count()
        };
        let networks = open(base.path()).await;
        let made = networks.create(named("gone")).await.unwrap();
        assert_eq!(links(), 1);
        drop(networks);
        // Its document vanishes, as if the kernel's part could not be removed.
        let document = base.path().join("networks").join(&made.network.id);
        std::fs::remove_dir_all(document).unwrap();
        let networks = open(base.path()).await;
        networks.0.parts().await.unwrap();
        assert_eq!(links(), 0);
    });
}

/// Many networks are created at once, and a caller that stops waiting leaves nothing half-done.
#[test]
fn subnets_are_never_allocated_twice() {
    in_namespace(async {
        let base = tempfile::tempdir().unwrap();
        let networks = open(base.path()).await;
        let makers: Vec<_> = (0..12)
            .map(|number| {
                let networks = networks.clone();
                tokio::spawn(async move { networks.create(named(&format!("n{number}"))).await })
            })
            .collect();
        for (number, maker) in makers.into_iter().enumerate() {
            match number % 4 {
                3 => maker.abort(),
                _ => drop(maker.await.unwrap().unwrap()),
            }
        }
        let mut subnets: Vec<_> = networks
            .list()
            .iter()
            .flat_map(|network| network.subnets.iter().map(|subnet| subnet.prefix))
            .collect();
        let all = subnets.len();
        assert!(all >= 10);
        subnets.sort();
        subnets.dedup();
        assert_eq!(subnets.len(), all);
        let error = networks.create(named("n0")).await.unwrap_err();
        assert_eq!(error.to_string(), "network with name n0 already exists");
    });
}
