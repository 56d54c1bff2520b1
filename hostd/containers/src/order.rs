//! The order in which restart policies start containers after the engine was opened: a container
//! that names others is started after them. Docker starts them in any order.
//!
//! Only the first start of each container that was found waits, and only for what is being started or
//! will be by its policy, and for its first good health where that is asked for. What leads back to the container itself is not waited for, so nobody waits in
//! a circle. Those whose namespaces are joined belong to the order, and are also waited for at every later
//! start, but for a shorter time (`donors`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keelson_model::spec::{Donors, Part, StartOrder};

use crate::container::Container;
use crate::engine::Inner;
use crate::types::Snapshot;
use crate::types::health::HealthStatus;

/// How long after the opening a start waits for others.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it waits for their health. Afterwards it starts anyway, because a machine that serves
/// partly is better than one that does not serve.
const HEALTH_LIMIT: Duration = Duration::from_secs(180);
/// How often their health is checked.
const LOOK: Duration = Duration::from_millis(100);

/// The order of starts, by identifier.
#[derive(Debug, Default, PartialEq, Eq)]
struct Order(BTreeMap<String, BTreeSet<String>>);

impl Order {
    /// `resolve` finds a container by its identifier or name.
    fn of<'a>(
        all: impl Iterator<Item = (&'a str, &'a StartOrder)> + Clone,
        resolve: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let mut of_parts: BTreeMap<&Part, Vec<&str>> = BTreeMap::new();
        for (id, order) in all.clone() {
            if let Some(part) = &order.part_of {
                of_parts.entry(part).or_default().push(id);
            }
        }
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (id, order) in all {
            let named = order.after.iter().filter_map(|name| resolve(name));
            let services = order.part_of.iter().flat_map(|part| {
                order.after_services.iter().map(|service| Part {
                    group: part.group.clone(),
                    service: service.clone(),
                })
            });
            let of_services = services.flat_map(|part| {
                let found = of_parts.get(&part).into_iter().flatten();
                found.map(|id| (*id).to_owned()).collect::<Vec<_>>()
            });
            let before: BTreeSet<String> = named.chain(of_services).collect();
            if !before.is_empty() {
                edges.insert(id.to_owned(), before);
            }
        }
        Self(edges)
    }

    /// The containers for which one waits.
    fn before(&self, id: &str) -> Vec<&str> {
        let direct = self.0.get(id).into_iter().flatten();
        direct
            .map(String::as_str)
            .filter(|other| !self.leads(other, id))
            .collect()
    }

    /// Whether a container depends on another one, or is that one.
    fn leads(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(id) = next.pop() {
            if id == to {
                return true;
            }
            if seen.insert(id) {
                next.extend(self.0.get(id).into_iter().flatten().map(String::as_str));
            }
        }
        false
    }
}

impl Inner {
    /// Waits for the containers that come before a container, at its first start after the engine
    /// was opened.
    pub(crate) async fn await_turn(&self, container: &Container) {
        if !container.take_first_start()
            || self.opened.elapsed() > LIMIT
            || order_of(&container.snapshot()) == StartOrder::default()
        {
            return;
        }
        let waiting = async {
            let mut settled = self.settled.subscribe();
            let _ = settled.wait_for(|settled| *settled).await;
            let before = self.before(container);
            for other in &before {
                other.decided().await;
            }
            before
        };
        let late = |what: &str, limit: Duration| {
            tracing::warn!(
                id = container.id,
                "the containers before it are not {what} within {} s; it starts now",
                limit.as_secs()
            );
        };
        match tokio::time::timeout_at(self.opened + LIMIT, waiting).await {
            Err(_) => late("started", LIMIT),
            Ok(before) => {
                let healthy = before
                    .iter()
                    .filter(|other| wants_healthy(&container.snapshot(), &other.snapshot()));
                let waiting = async {
                    for other in healthy {
                        self.healthy_or_ended(other).await;
                    }
                };
                let deadline = self.opened + HEALTH_LIMIT;
                if tokio::time::timeout_at(deadline, waiting).await.is_err() {
                    late("healthy", HEALTH_LIMIT);
                }
            }
        }
    }

    /// Waits until a container is healthy, or is not checked, or all containers are being stopped.
    async fn healthy_or_ended(&self, container: &Container) {
        while !self.shutting_down.load(Ordering::Acquire) {
            let snapshot = container.snapshot();
            let unknown = snapshot
                .health
                .as_ref()
                .is_none_or(|health| health.status == HealthStatus::Healthy);
            if unknown || !snapshot.state.status.counts_as_running() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn before(&self, container: &Container) -> Vec<Arc<Container>> {
        let all: Vec<_> = self.with(container.scope, |registry| {
            registry.values().map(|other| other.snapshot()).collect()
        });
        let orders: Vec<_> = all
            .iter()
            .map(|snapshot| (snapshot.id.as_str(), order_of(snapshot)))
            .collect();
        let orders = orders.iter().map(|(id, order)| (*id, order));
        let find = |name: &str| self.resolve(container.scope, name).ok();
        let order = Order::of(orders, |name| find(name).map(|found| found.id.clone()));
        let before = order.before(&container.id);
        before.into_iter().filter_map(find).collect()
    }
}

/// What a container is started after: also those whose namespaces it joins. They are waited for at every
/// start (`donors`), but not for as long as a slow machine takes to start everything after its boot.
fn order_of(snapshot: &Snapshot) -> StartOrder {
    let mut order = snapshot.spec.start_order.clone();
    let Donors { network, pid, ipc } = &snapshot.spec.namespaces.donors;
    for donor in [network, pid, ipc].into_iter().flatten() {
        order.after.push(donor.clone());
    }
    order
}

/// Whether a container is to be started only when another one is healthy.
fn wants_healthy(container: &Snapshot, other: &Snapshot) -> bool {
    let (own, of_other) = (&container.spec.start_order, &other.spec.start_order);
    match (&own.part_of, &of_other.part_of) {
        (Some(part), Some(other)) => {
            part.group == other.group && own.healthy_services.contains(&other.service)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(service: &str) -> Option<Part> {
        Some(Part {
            group: "g".to_owned(),
            service: service.to_owned(),
        })
    }

    fn of(all: &[(&str, StartOrder)]) -> Order {
        let orders = all.iter().map(|(id, order)| (*id, order));
        Order::of(orders, |name| {
            let found = all.iter().find(|(id, _)| *id == name);
            found.map(|(id, _)| (*id).to_owned())
        })
    }

    #[test]
    fn services_and_containers_come_first() {
        let web = StartOrder {
            part_of: part("web"),
            after_services: vec!["db".to_owned(), "gone".to_owned()],
            healthy_services: vec!["db".to_owned()],
            after: vec!["e".to_owned(), "gone".to_owned()],
        };
        let db = StartOrder {
            part_of: part("db"),
            ..StartOrder::default()
        };
        let foreign = StartOrder {
            part_of: Some(Part {
                group: "other".to_owned(),
                service: "db".to_owned(),
            }),
            ..StartOrder::default()
        };
        let order = of(&[
            ("a", web),
            ("b", db.clone()),
            ("c", db),
            ("d", foreign),
            ("e", StartOrder::default()),
        ]);
        assert_eq!(order.before("a"), ["b", "c", "e"]);
        assert_eq!(order.before("b"), [""; 0]);
    }

    proptest! {
        #[test]
        fn circular_dependencies_do_not_wait(edges in proptest::collection::vec((0_u8..12, 0_u8..12), 0..60)) {
            let mut order = Order::default();
            for (from, to) in edges {
                order.0.entry(from.to_string()).or_default().insert(to.to_string());
            }
            let waits: BTreeMap<String, BTreeSet<String>> = (0_u8..12)
                .map(|id| id.to_string())
                .map(|id| {
                    let before = order.before(&id).into_iter().map(str::to_owned).collect();
                    (id, before)
                })
                .collect();
            let waiting = Order(waits);
            for (id, before) in &waiting.0 {
                for other in before {
                    prop_assert!(!waiting.leads(other, id));
                }
            }
            // Dependencies outside of circles are kept.
            for (id, before) in &order.0 {
                for other in before.iter().filter(|other| !order.leads(other, id)) {
                    prop_assert!(waiting.0[id].contains(other));
                }
            }
        }
    }
}
