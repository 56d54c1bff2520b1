use std::collections::BTreeMap;
use std::path::Path;

use keelson_store::Era;

use super::*;
use crate::settings::DefaultBridge;

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
    })
    .await
    .unwrap()
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

#[tokio::test]
async fn networks_come_and_go() {
    let base = tempfile::tempdir().unwrap();
    let networks = open(base.path()).await;
    assert!(networks.has_default_bridge());
    let mut events = networks.subscribe();
    for name in ["used", "unused", "other"] {
        networks.create(named(name)).await.unwrap();
    }
    networks.reserve("c", "web", &[to("used")]).unwrap();
    let pruned = networks.prune(|network| network.name != "other").await;
    assert_eq!(pruned.unwrap(), ["unused"]);
    assert!(networks.remove("used").await.is_err());
    networks.release_all("c");
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
}

/// Many are made at once, and a caller that goes away leaves nothing half-made.
#[tokio::test]
async fn subnets_are_never_given_twice() {
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
}

#[test]
fn half_of_the_internet_is_no_network() {
    for (prefix, expected) in [
        ("0.0.0.0/1", false),
        ("128.0.0.0/1", false),
        ("8000::/1", false),
        ("10.0.0.0/8", true),
        ("192.168.1.0/24", true),
        ("fe80::/64", true),
    ] {
        assert_eq!(is_network(prefix.parse().unwrap()), expected, "{prefix}");
    }
}

#[tokio::test]
#[ignore = "prints figures"]
async fn a_thousand_containers() {
    let base = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let networks = open(base.path()).await;
    networks.create(named("front")).await.unwrap();
    let both = [to("front"), to("bridge")];
    let start = std::time::Instant::now();
    for number in 0..1000 {
        let id = format!("{number:064x}");
        networks.configure(&id, &both);
        networks.reserve(&id, "name", &both).unwrap();
    }
    let given = start.elapsed();
    let one = std::time::Instant::now();
    networks.reserve("one", "one", &both).unwrap();
    let one = one.elapsed();
    let start = std::time::Instant::now();
    let again = open(base.path()).await;
    let opened = start.elapsed();
    let start = std::time::Instant::now();
    for number in 0..1000 {
        again.release_all(&format!("{number:064x}"));
    }
    let taken = start.elapsed();
    println!(
        "two networks: reserve 1000 {given:?}, the next {one:?}, open {opened:?}, release {taken:?}"
    );
}
