use std::collections::BTreeMap;
use std::path::Path;

use keelson_store::Era;

use super::*;
use crate::settings::{DefaultBridge, ResolverOptions};

async fn open(base: &Path) -> Networks {
    Networks::open(NetworkOptions {
        base: base.join("networks"),
        run: base.join("run"),
        boot: "boot".to_owned(),
        era: Era::Blessed,
        engine: "engine".to_owned(),
        pools: Vec::new(),
        default_options: BTreeMap::new(),
        default_bridge: Some(DefaultBridge::default()),
        resolver: ResolverOptions::none(base),
    })
    .await
    .unwrap()
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
            ["create", "create", "create", "destroy", "prune", "destroy"]
        );
        let names: Vec<_> = networks.list().iter().map(|one| one.name.clone()).collect();
        assert_eq!(names, ["bridge", "host", "none", "other"]);
    });
}

/// Many are made at once, and a caller that goes away leaves nothing half-made.
#[test]
fn subnets_are_never_given_twice() {
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
