//! Changes of the table, by us and by others, and their cost.

use std::time::{Duration, Instant};

use keelson_model::spec::Protocol;
use proptest::prelude::*;

use super::world::*;
use crate::firewall::*;
use crate::types::{Binding, Endpoint};

fn is_whole(world: &World) -> bool {
    let repaired = world.host.run(|| world.firewall.repair(false));
    !repaired.unwrap().unwrap()
}

#[test]
fn nft_shows_the_intended_table() {
    let Some(world) = World::new(&[], Transit::default()) else {
        return;
    };
    let first = network(1);
    let published = everywhere(8080, 80);
    let all = elements(&[&first], &[(&first, endpoint(1, 2), &published)]);
    world.restore(all);
    assert!(is_whole(&world));
    let Some(text) = listed(&world.host) else {
        return;
    };
    for line in [
        "table inet keelson {",
        "type nat hook prerouting priority dstnat; policy accept;",
        "fib daddr type local jump published",
        "dnat ip to ip daddr . meta l4proto . th dport map @ports4",
        "dnat ip6 to meta l4proto . th dport map @any6",
        "ct state established,related accept comment \"connections that were allowed to begin\"",
        "iifname . oifname vmap @within comment \"between containers of a network\"",
        "meta nfproto ipv4 oifname vmap @to4 comment \"into networks\"",
        "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
        "ct status dnat iifname . oifname @same masquerade",
        "meta l4proto tcp reject with tcp reset",
        "elements = { tcp . 8080 : 172.30.1.2 . 80,",
        "elements = { \"br1\" : goto to_nat }",
        "elements = { \"br1\" . \"br1\" : accept }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn changes_can_be_repeated_and_take_nothing_from_others() {
    let Some(world) = World::new(&[], Transit::default()) else {
        return;
    };
    let first = network(1);
    let of = |container, bindings: &[Binding]| {
        elements_of_endpoint(&first, &endpoint(1, container), bindings, false)
    };
    let nothing = Elements::default();
    let published = everywhere(8080, 80);
    let (one, two) = (of(2, &published), of(3, &published));
    world.restore(elements_of_network(&first));
    for _ in 0..2 {
        world.apply(&one, &nothing);
        assert!(is_whole(&world));
    }
    // The port goes to another container; a late removal by the first one has no effect.
    world.apply(&two, &nothing);
    world.apply(&nothing, &one);
    assert!(is_whole(&world));
    let port = |text: &str| text.contains("tcp . 8080 : 172.30.1.3 . 80");
    assert!(listed(&world.host).is_none_or(|text| port(&text)));
    for _ in 0..2 {
        world.apply(&nothing, &two);
        assert!(is_whole(&world));
    }
    // A refused transaction changes nothing, for example if somebody else has a set of the same
    // name.
    let gone = |text: &str| !text.contains("8080");
    assert!(listed(&world.host).is_none_or(|text| gone(&text)));
    if listed(&world.host).is_some() {
        // The table was deleted by somebody else and not restored: the next change restores it.
        shell(&world.host, "nft flush ruleset");
        assert!(!listed(&world.host).unwrap().contains("keelson"));
        world.apply(&one, &nothing);
        assert!(is_whole(&world));
        assert!(
            listed(&world.host)
                .unwrap()
                .contains("\"br1\" : goto to_nat")
        );
        shell(
            &world.host,
            "nft delete element inet keelson any4 '{ tcp . 8080 }'",
        );
        world.apply(&nothing, &one);
        assert!(is_whole(&world));
    }
}

#[test]
fn a_flushed_table_is_restored_with_what_is_left() {
    let Some(world) = World::new(&[1, 2], Transit::default()) else {
        return;
    };
    if listed(&world.host).is_none() {
        return;
    }
    let (first, second) = (network(1), network(2));
    let (_one, other) = (world.container(1, 2), world.container(2, 2));
    let (kept, deleted) = (everywhere(8080, 80), everywhere(8081, 81));
    let removed = elements_of_endpoint(&first, &endpoint(1, 2), &deleted, false);
    let mut all = elements(&[&first, &second], &[(&first, endpoint(1, 2), &kept)]);
    all.merge(removed.clone());
    world.restore(all);
    world.apply(&Elements::default(), &removed);
    std::thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        scope.spawn(|| {
            let watch = || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    tokio::select! {
                        ended = world.firewall.watch() => panic!("{ended:?}"),
                        _ = stopped => {}
                    }
                });
            };
            world.host.run(watch).unwrap();
        });
        for command in [
            "nft flush ruleset",
            "nft delete table inet keelson",
            "nft flush set inet keelson bridges",
            "nft flush chain inet keelson forward",
        ] {
            shell(&world.host, command);
            let begun = Instant::now();
            loop {
                let text = listed(&world.host).unwrap();
                if text.contains("bridges")
                    && text.contains("vmap @within")
                    && text.contains("\"br1\"")
                    && is_whole(&world)
                {
                    break;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "{command}\n{text}"
                );
            }
            eprintln!("{command}: seen restored after {:?}", begun.elapsed());
            reaches(&world.neighbour, "192.0.2.1:8080", "192.0.2.9");
            is_cut_off(&other, "172.30.1.2:80");
            is_refused(&world.neighbour, "192.0.2.1:8081");
        }
        // Our own changes are no reason.
        let generation = || {
            let read = || keelson_nftables::Netfilter::open().unwrap().generation();
            world.host.run(read).unwrap().unwrap()
        };
        let before = generation();
        world.apply(&removed, &Elements::default());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(generation(), before + 1);
        stop.send(()).unwrap();
    });
}

/// Endpoints come and go in any order; the kernel has the intended elements.
#[test]
fn the_kernels_table_equals_the_engines_state() {
    let Some(world) = World::new(&[], Transit::default()) else {
        return;
    };
    let first = network(1);
    let of = |container: u8| {
        let number = u16::from(container % 4);
        // Some want the same port.
        let bindings = [
            binding("0.0.0.0", 8000 + number, 80, Protocol::Tcp),
            binding("192.0.2.1", 9000 + number, 90, Protocol::Udp),
            binding("::", 8000 + number, 80, Protocol::Tcp),
        ];
        elements_of_endpoint(&first, &endpoint(1, container), &bindings, false)
    };
    let step = (any::<bool>(), 2_u8..10, 2_u8..10);
    let config = ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in proptest::collection::vec(step, 1..12))| {
        world.restore(elements_of_network(&first));
        for (both, one, other) in steps {
            let (add, remove) = (of(one), of(other));
            match both {
                true => world.apply(&add, &remove),
                false => world.apply(&Elements::default(), &remove),
            }
            prop_assert!(is_whole(&world));
        }
    });
}

/// The thousandth container costs what the first did.
#[test]
fn the_thousandth_port_costs_what_the_first_did() {
    let Some(world) = World::new(&[1], Transit::default()) else {
        return;
    };
    let first = network(1);
    let _container = world.container(1, 2);
    world.restore(elements_of_network(&first));
    let endpoint = |number: u16| -> Endpoint {
        let mut endpoint = endpoint(1, 2);
        endpoint.ipv4 = Some(prefix(&format!(
            "172.30.{}.{}/16",
            number / 200,
            number % 200 + 2
        )));
        endpoint
    };
    let elements: Vec<_> = (0..1000)
        .map(|number| {
            let bindings = everywhere(10000 + number, 80);
            elements_of_endpoint(&first, &endpoint(number), &bindings[..2], false)
        })
        .collect();
    let nothing = Elements::default();
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let timed = |change: &(dyn Fn(&Elements) + Sync)| -> Vec<Duration> {
        let run = || {
            let each = elements.iter().map(|elements| {
                let begun = Instant::now();
                change(elements);
                begun.elapsed()
            });
            each.collect()
        };
        world.host.run(run).unwrap()
    };
    let added = timed(&|elements| world.firewall.apply(elements, &nothing).unwrap());
    assert!(is_whole(&world));
    reaches_after(&world);
    let everything = || {
        let mut all = elements_of_network(&first);
        for elements in &elements {
            all.merge(elements.clone());
        }
        let begun = Instant::now();
        world.firewall.restore(all).unwrap();
        begun.elapsed()
    };
    let restored = world.host.run(everything).unwrap();
    let removed = timed(&|elements| world.firewall.apply(&nothing, elements).unwrap());
    // For UDP ports the kernel's connections are searched, too, but later.
    let with_udp = || -> Vec<Duration> {
        let both = (0..20).map(|number| {
            let bindings = everywhere(20000 + number, 80);
            let elements = elements_of_endpoint(&network(1), &endpoint(number), &bindings, false);
            let begun = Instant::now();
            world.firewall.apply(&elements, &nothing).unwrap();
            begun.elapsed()
        });
        both.collect()
    };
    let with_udp = median(&world.host.run(with_udp).unwrap());
    let (first, last) = (median(&added[..100]), median(&added[900..]));
    eprintln!(
        "published on both families, 1000 times: adding the first 100 {first:?} each, the last 100 \
         {last:?}, the very first {:?}; removing {:?}; all at once {restored:?}; with \
         UDP {with_udp:?}",
        added[0],
        median(&removed),
    );
    assert!(
        last < first * 3 + Duration::from_micros(500),
        "{first:?} {last:?}"
    );
}

fn reaches_after(world: &World) {
    let first = network(1);
    let bindings = everywhere(9999, 80);
    let last = elements_of_endpoint(&first, &endpoint(1, 2), &bindings, false);
    world.apply(&last, &Elements::default());
    reaches(&world.neighbour, "192.0.2.1:9999", "192.0.2.9");
    world.apply(&Elements::default(), &last);
}
