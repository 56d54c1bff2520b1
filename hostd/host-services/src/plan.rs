//! The order in which services start. Pure.

use std::collections::{BTreeMap, BTreeSet};

use keelson_model::host::ServiceConfig;

use crate::definition::{Definition, DefinitionError};

/// The order, and the services that cannot start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Names in the order in which the services start: each after its predecessors. They stop in the
    /// reverse order.
    pub order: Vec<String>,
    /// Why a service cannot start.
    pub failed: BTreeMap<String, DefinitionError>,
}

/// Makes the plan. Services that do not depend on each other start in the order of their names.
/// Those that are switched off are in neither list; nobody waits for them, but who requires them
/// cannot start.
pub fn plan(services: &BTreeMap<String, Definition>) -> Plan {
    let mut plan = Plan::default();
    let mut after: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, definition) in services {
        if !definition.config.is_enabled() {
            continue;
        }
        match unknown(name, definition, services) {
            Some(error) => {
                plan.failed.insert(name.clone(), error);
            }
            None => {
                let enabled = |other: &&String| services[*other].config.is_enabled();
                let others = definition.config.predecessors().filter(enabled);
                after.insert(name.clone(), others.cloned().collect());
            }
        }
    }
    let mut placed = BTreeSet::new();
    // Each pass places the services whose predecessors are placed or cannot start, and fails those
    // that require one that cannot start.
    loop {
        let mut progress = false;
        for (name, predecessors) in &after {
            if placed.contains(name) || plan.failed.contains_key(name) {
                continue;
            }
            let definition = &services[name];
            let broken = definition
                .config
                .requires
                .iter()
                .position(|other| plan.failed.contains_key(other));
            if let Some(index) = broken {
                let other = &definition.config.requires[index];
                let error = definition.error(
                    name,
                    &format!("requires[{index}]"),
                    format!("service {other:?} cannot start"),
                    format!("correct {other}, or write it in after"),
                );
                plan.failed.insert(name.clone(), error);
                progress = true;
            } else if predecessors
                .iter()
                .all(|other| placed.contains(other) || plan.failed.contains_key(other))
            {
                plan.order.push(name.clone());
                placed.insert(name.clone());
                progress = true;
            }
        }
        if progress {
            continue;
        }
        // Every service that is left waits for a cycle, or is part of one.
        let Some(cycle) = find_cycle(&after, &placed, &plan.failed) else {
            return plan;
        };
        let text = cycle.join(" after ");
        for name in &cycle {
            let definition = &services[name];
            let field = match definition.config.after.iter().any(|o| cycle.contains(o)) {
                true => "after",
                false => "requires",
            };
            let error = definition.error(
                name,
                field,
                format!("services wait for each other: {text}"),
                "leave one of them out",
            );
            plan.failed.entry(name.clone()).or_insert(error);
        }
    }
}

/// The error of a service that names others that it can't have.
fn unknown(
    name: &str,
    definition: &Definition,
    services: &BTreeMap<String, Definition>,
) -> Option<DefinitionError> {
    let ServiceConfig {
        after, requires, ..
    } = &definition.config;
    for (field, others) in [("after", after), ("requires", requires)] {
        for (index, other) in others.iter().enumerate() {
            let field = format!("{field}[{index}]");
            match services.get(other) {
                None => {
                    let known: Vec<&str> = services.keys().map(String::as_str).collect();
                    return Some(definition.error(
                        name,
                        &field,
                        format!("there is no service {other:?}"),
                        format!("there are {}", known.join(", ")),
                    ));
                }
                Some(found) if !found.config.is_enabled() && field.starts_with("requires") => {
                    return Some(definition.error(
                        name,
                        &field,
                        format!("service {other:?} is switched off"),
                        format!("hostctl service enable {other}, or write it in after"),
                    ));
                }
                Some(_) => {}
            }
        }
    }
    None
}

/// A cycle among the services that are neither placed nor failed: `a, b, a`.
fn find_cycle(
    after: &BTreeMap<String, Vec<String>>,
    placed: &BTreeSet<String>,
    failed: &BTreeMap<String, DefinitionError>,
) -> Option<Vec<String>> {
    let open = |name: &String| !placed.contains(name) && !failed.contains_key(name);
    let mut path: Vec<String> = vec![after.keys().find(|name| open(name))?.clone()];
    loop {
        // Every open service has an open predecessor, or it would have been placed.
        let next = after.get(path.last()?)?.iter().find(|other| open(other))?;
        if let Some(start) = path.iter().position(|seen| seen == next) {
            let mut cycle = path.split_off(start);
            cycle.push(next.clone());
            return Some(cycle);
        }
        path.push(next.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(after: &[&str], requires: &[&str]) -> Definition {
        let owned = |list: &[&str]| list.iter().map(|&other| other.to_owned()).collect();
        Definition {
            config: ServiceConfig {
                after: owned(after),
                requires: owned(requires),
                ..ServiceConfig::default()
            },
            places: BTreeMap::new(),
        }
    }

    fn off() -> Definition {
        let mut definition = service(&[], &[]);
        definition.config.enabled = Some(false);
        definition
    }

    fn of(list: Vec<(&str, Definition)>) -> Plan {
        let list = list.into_iter();
        plan(&list.map(|(name, made)| (name.to_owned(), made)).collect())
    }

    fn why(plan: &Plan, name: &str) -> String {
        plan.failed[name].to_string()
    }

    #[test]
    fn predecessors_come_first() {
        let plan = of(vec![
            ("a", service(&["c"], &[])),
            ("b", service(&[], &[])),
            ("c", service(&[], &["b"])),
            ("d", service(&[], &[])),
        ]);
        assert_eq!(plan.order, ["b", "c", "d", "a"]);
        assert!(plan.failed.is_empty());
    }

    #[test]
    fn a_cycle_is_named_and_others_start() {
        let plan = of(vec![
            ("a", service(&[], &["b"])),
            ("b", service(&["c"], &[])),
            ("c", service(&[], &["b"])),
            ("d", service(&[], &[])),
            ("e", service(&["b"], &[])),
            ("self", service(&["self"], &[])),
        ]);
        assert_eq!(plan.order, ["d", "e"]);
        assert!(why(&plan, "b").contains("b after c after b"), "{plan:?}");
        assert!(why(&plan, "c").contains("services.c.requires"), "{plan:?}");
        assert!(why(&plan, "a").contains("\"b\" cannot start"), "{plan:?}");
        assert!(why(&plan, "self").contains("self after self"), "{plan:?}");
    }

    #[test]
    fn an_unknown_predecessor_is_named() {
        let plan = of(vec![
            ("a", service(&["nope"], &[])),
            ("b", service(&[], &["a"])),
            ("c", service(&["a"], &[])),
        ]);
        assert_eq!(plan.order, ["c"]);
        for part in ["services.a.after[0]", "\"nope\"", "there are a, b, c"] {
            assert!(why(&plan, "a").contains(part), "{plan:?}");
        }
        assert!(why(&plan, "b").contains("\"a\" cannot start"));
    }

    #[test]
    fn nobody_waits_for_what_is_switched_off() {
        let plan = of(vec![
            ("a", service(&["x"], &[])),
            ("b", service(&[], &["x"])),
            ("x", off()),
        ]);
        assert_eq!(plan.order, ["a"]);
        assert!(why(&plan, "b").contains("enable x"), "{plan:?}");
    }

    proptest! {
        #[test]
        fn every_service_is_placed_once_or_failed_or_off(
            list in proptest::collection::btree_map(
                "[a-f]",
                (
                    proptest::collection::vec("[a-g]", 0..3),
                    proptest::collection::vec("[a-g]", 0..2),
                    proptest::option::of(any::<bool>()),
                ),
                0..6,
            )
        ) {
            let list: BTreeMap<String, Definition> = list
                .into_iter()
                .map(|(name, (after, requires, enabled))| {
                    let config = ServiceConfig { after, requires, enabled, ..ServiceConfig::default() };
                    (name, Definition { config, places: BTreeMap::new() })
                })
                .collect();
            let plan = plan(&list);
            let on = list.values().filter(|service| service.config.is_enabled());
            prop_assert_eq!(plan.order.len() + plan.failed.len(), on.count());
            for (index, name) in plan.order.iter().enumerate() {
                prop_assert!(!plan.failed.contains_key(name));
                for other in list[name].config.predecessors() {
                    let off = list.get(other).is_some_and(|other| !other.config.is_enabled());
                    let before = plan.order[..index].contains(other);
                    prop_assert!(before || off || plan.failed.contains_key(other));
                }
                for other in &list[name].config.requires {
                    prop_assert!(plan.order[..index].contains(other));
                }
            }
        }
    }
}
