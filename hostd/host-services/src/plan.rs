//! The order in which services start. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The order, and the services that cannot start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Names in the order in which the services start: each after its predecessors. They stop in the
    /// reverse order.
    pub order: Vec<String>,
    /// Why a service cannot start.
    pub failed: BTreeMap<String, String>,
}

/// Makes the plan from each service's predecessors (its list `after`). Services that do not depend
/// on each other start in the order of their names.
pub fn plan(after: &BTreeMap<String, Vec<String>>) -> Plan {
    let mut plan = Plan::default();
    let mut placed = BTreeSet::new();
    // Each pass places the services whose predecessors are placed, and fails those that lack one.
    loop {
        let mut progress = false;
        for (name, predecessors) in after {
            if placed.contains(name) || plan.failed.contains_key(name) {
                continue;
            }
            let missing = predecessors
                .iter()
                .find(|other| !after.contains_key(*other));
            let broken = predecessors
                .iter()
                .find(|other| plan.failed.contains_key(*other));
            if let Some(other) = missing {
                let reason = format!("after: there is no service {other:?}");
                plan.failed.insert(name.clone(), reason);
                progress = true;
            } else if let Some(other) = broken {
                let reason = format!("after: service {other:?} cannot start");
                plan.failed.insert(name.clone(), reason);
                progress = true;
            } else if predecessors.iter().all(|other| placed.contains(other)) {
                plan.order.push(name.clone());
                placed.insert(name.clone());
                progress = true;
            }
        }
        if progress {
            continue;
        }
        // Every service that is left waits for a cycle, or is part of one.
        let Some(cycle) = find_cycle(after, &placed, &plan.failed) else {
            return plan;
        };
        let text = cycle.join(" after ");
        for name in &cycle {
            plan.failed
                .entry(name.clone())
                .or_insert_with(|| format!("after: services wait for each other: {text}"));
        }
    }
}

/// A cycle among the services that are neither placed nor failed: `a, b, a`.
fn find_cycle(
    after: &BTreeMap<String, Vec<String>>,
    placed: &BTreeSet<String>,
    failed: &BTreeMap<String, String>,
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

    fn of(list: &[(&str, &[&str])]) -> Plan {
        plan(
            &list
                .iter()
                .map(|(name, after)| {
                    let after = after.iter().map(|&other| other.to_owned()).collect();
                    ((*name).to_owned(), after)
                })
                .collect(),
        )
    }

    #[test]
    fn predecessors_come_first() {
        let plan = of(&[("a", &["c"]), ("b", &[]), ("c", &["b"]), ("d", &[])]);
        assert_eq!(plan.order, ["b", "c", "d", "a"]);
        assert!(plan.failed.is_empty());
    }

    #[test]
    fn a_cycle_is_named_and_others_start() {
        let plan = of(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &["b"]),
            ("d", &[]),
            ("self", &["self"]),
        ]);
        assert_eq!(plan.order, ["d"]);
        assert!(plan.failed["b"].contains("b after c after b"), "{plan:?}");
        assert!(plan.failed["a"].contains("\"b\" cannot start"), "{plan:?}");
        assert!(plan.failed["self"].contains("self after self"), "{plan:?}");
    }

    #[test]
    fn an_unknown_predecessor_is_named() {
        let plan = of(&[("a", &["nope"]), ("b", &["a"]), ("c", &[])]);
        assert_eq!(plan.order, ["c"]);
        assert!(plan.failed["a"].contains("\"nope\""));
        assert!(plan.failed["b"].contains("\"a\" cannot start"));
    }

    proptest! {
        #[test]
        fn every_service_is_placed_once_or_failed(
            list in proptest::collection::btree_map("[a-f]", proptest::collection::vec("[a-g]", 0..3), 0..6)
        ) {
            let plan = plan(&list);
            prop_assert_eq!(plan.order.len() + plan.failed.len(), list.len());
            for (index, name) in plan.order.iter().enumerate() {
                prop_assert!(!plan.failed.contains_key(name));
                for other in &list[name] {
                    prop_assert!(plan.order[..index].contains(other));
                }
            }
        }
    }
}
