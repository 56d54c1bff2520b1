//! Random operations on networks and containers, compared with a model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The operations of clients, and kills of the engine, in any order.
#[derive(Debug, Clone)]
enum Step {
    Make(u8),
    Remove(u8),
    Start {
        container: u8,
        networks: Vec<u8>,
        address: Option<u8>,
    },
    Connect {
        container: u8,
        network: u8,
    },
    Disconnect {
        container: u8,
        index: u8,
    },
    Stop(u8),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let few = || 0_u8..6;
    let step = prop_oneof![
        3 => few().prop_map(Step::Make),
        1 => few().prop_map(Step::Remove),
        4 => (few(), prop::collection::vec(few(), 1..3), prop::option::of(0_u8..8))
            .prop_map(|(container, networks, address)| Step::Start { container, networks, address }),
        2 => (few(), few()).prop_map(|(container, network)| Step::Connect { container, network }),
        2 => (few(), few()).prop_map(|(container, index)| Step::Disconnect { container, index }),
        2 => few().prop_map(Step::Stop),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..40)
}

/// The model: for each network, which container has which address.
type Model = BTreeMap<String, BTreeMap<String, Option<u8>>>;

/// A network `nX` has the subnet `10.0.X.0/29`: `.1` is the gateway, five more are for containers.
fn network_of(number: u8) -> String {
    format!("n{number}")
}

fn expect_start(model: &Model, container: &str, wanted: &[(String, Option<u8>)]) -> bool {
    let mut seen = BTreeSet::new();
    wanted.iter().all(|(network, address)| {
        let Some(inside) = model.get(network) else {
            return false;
        };
        let free = match address {
            Some(last) => (2..=6).contains(last) && !inside.values().any(|used| used == address),
            None => inside.len() < 5,
        };
        free && !inside.contains_key(container) && seen.insert(network.clone())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_address_is_lost_or_allocated_twice(steps in steps()) {
        let mut fixture = Fixture::new();
        let mut model = Model::new();
        for step in steps {
            let start = |container: u8, wanted: Vec<(String, Option<u8>)>, model: &mut Model, store: &Store| {
                let container = format!("c{container}");
                let specs: Vec<_> = wanted.iter().map(|(network, address)| match address {
                    Some(last) => at(network, &format!("10.0.{}.{last}", &network[1..])),
                    None => to(network),
                }).collect();
                let possible = expect_start(model, &container, &wanted);
                let given = store.reserve(&container, &container, &specs);
                prop_assert_eq!(given.is_ok(), possible, "{:?} {:?}", given, wanted);
                for end in given.into_iter().flatten() {
                    let Some(IpAddr::V4(address)) = end.ipv4.map(|prefix| prefix.address) else {
                        return Err(TestCaseError::fail("no address"));
                    };
                    let [_, _, number, last] = address.octets();
                    let inside = model.get_mut(&network_of(number)).unwrap();
                    prop_assert!((2..=6).contains(&last));
                    prop_assert!(!inside.values().any(|used| *used == Some(last)));
                    inside.insert(container.clone(), Some(last));
                }
                Ok(())
            };
            let store = &fixture.store;
            match step {
                Step::Make(number) => {
                    let name = network_of(number);
                    let mut new = with_subnets(&name, &[&format!("10.0.{number}.0/29")]);
                    new.ipv6 = None;
                    let made = store.begin(new, &[]);
                    prop_assert_eq!(made.is_ok(), !model.contains_key(&name));
                    if let Ok(made) = made {
                        store.publish(&made.network.id);
                        model.insert(name, BTreeMap::new());
                    }
                }
                Step::Remove(number) => {
                    let name = network_of(number);
                    let going = store.begin_removal(&name);
                    let empty = model.get(&name).is_some_and(BTreeMap::is_empty);
                    prop_assert_eq!(going.is_ok(), empty);
                    if let Ok(going) = going {
                        store.finish_removal(&going.id).unwrap();
                        model.remove(&name);
                    }
                }
                Step::Start { container, networks, address } => {
                    let wanted = networks.into_iter().map(|number| (network_of(number), address));
                    start(container, wanted.collect(), &mut model, store)?;
                }
                Step::Connect { container, network } => {
                    start(container, vec![(network_of(network), None)], &mut model, store)?;
                }
                Step::Disconnect { container, index } => {
                    let container = format!("c{container}");
                    let ends = store.endpoints_of(&container);
                    if let Some(end) = ends.get(usize::from(index)) {
                        let name = store.find(&end.network).unwrap().name.clone();
                        let left = store.release(&container, &end.id);
                        prop_assert_eq!(left.len(), ends.len() - 1);
                        model.get_mut(&name).unwrap().remove(&container);
                    }
                }
                Step::Stop(container) => {
                    let container = format!("c{container}");
                    store.release_all(&container);
                    for inside in model.values_mut() {
                        inside.remove(&container);
                    }
                }
                Step::Crash => {
                    let before = store.list();
                    fixture.crash();
                    prop_assert_eq!(fixture.store.list(), before);
                }
            }
            for (name, inside) in &model {
                let id = &fixture.store.find(name).unwrap().id;
                let found: BTreeMap<_, _> = fixture.store.endpoints_in(id).into_iter().map(|member| {
                    let last = match member.endpoint.ipv4.unwrap().address {
                        IpAddr::V4(address) => address.octets()[3],
                        IpAddr::V6(_) => 0,
                    };
                    (member.container, Some(last))
                }).collect();
                prop_assert_eq!(&found, inside);
            }
            let mut links = BTreeSet::new();
            for number in 0..6 {
                let ends = fixture.store.endpoints_of(&format!("c{number}"));
                let interfaces: BTreeSet<_> = ends.iter().map(|end| end.interface.clone()).collect();
                prop_assert_eq!(interfaces.len(), ends.len());
                prop_assert_eq!(ends.iter().filter(|end| end.default_ipv4).count(), usize::from(!ends.is_empty()));
                for end in ends {
                    prop_assert!(links.insert(end.host_link));
                }
            }
            let files = fs::read_dir(fixture.base.path().join("run")).unwrap().count();
            let running = (0..6).filter(|n| !fixture.store.endpoints_of(&format!("c{n}")).is_empty());
            prop_assert_eq!(files, running.count());
        }
    }
}
