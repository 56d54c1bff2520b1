//! Leases: they keep an object from being removed while it is in use.
//!
//! An owner of objects (images, volumes, networks) keeps a table [`Leases`]. A user of an object
//! takes a [`Lease`] and keeps it as long as the use lasts. Dropping the last clone ends the lease.
//!
//! The owner takes a lease under the same lock under which it looks for holders before a removal. So
//! an object can't be removed between the moment it is found and the moment it is held
//! (docs/decisions/0018-what-is-in-use-is-held-by-leases.md).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a lease holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim<K> {
    /// One object.
    One(K),
    /// An unknown object. Every object counts as held.
    Any,
}

/// The leases on an owner's objects. Clones share them. `K` names an object, `H` describes a holder.
pub struct Leases<K, H>(Arc<Table<K, H>>);

type Holders<H> = BTreeMap<u64, Arc<H>>;

struct Table<K, H> {
    held: Mutex<Held<K, H>>,
    released: Box<dyn Fn() + Send + Sync>,
}

struct Held<K, H> {
    /// How many leases have been taken. It numbers them in the order of time.
    taken: u64,
    /// Never holds an empty map.
    by_claim: BTreeMap<Claim<K>, Holders<H>>,
}

/// Holds an object until its last clone is dropped.
pub struct Lease<K: Ord + Clone, H>(Arc<Entry<K, H>>);

struct Entry<K: Ord + Clone, H> {
    table: Arc<Table<K, H>>,
    number: u64,
    claim: Claim<K>,
    holder: Arc<H>,
}

impl<K: Ord + Clone, H> Leases<K, H> {
    /// An empty table. `released` is called after the end of each lease, on the thread that dropped
    /// it and without the table's lock. It must return at once.
    pub fn new(released: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Table {
            held: Mutex::new(Held {
                taken: 0,
                by_claim: BTreeMap::new(),
            }),
            released: Box::new(released),
        }))
    }

    /// Takes a lease. The caller must know that the object exists.
    pub fn take(&self, claim: Claim<K>, holder: H) -> Lease<K, H> {
        let holder = Arc::new(holder);
        let mut held = self.0.lock();
        let number = held.taken;
        held.taken += 1;
        let holders = held.by_claim.entry(claim.clone()).or_default();
        holders.insert(number, Arc::clone(&holder));
        Lease(Arc::new(Entry {
            table: Arc::clone(&self.0),
            number,
            claim,
            holder,
        }))
    }

    /// The holders of an object, oldest first, then those that may hold it ([`Claim::Any`]).
    pub fn holders(&self, key: &K) -> Vec<Arc<H>> {
        let held = self.0.lock();
        [Claim::One(key.clone()), Claim::Any]
            .iter()
            .filter_map(|claim| held.by_claim.get(claim))
            .flat_map(|holders| holders.values().cloned())
            .collect()
    }

    /// The known holders of an object, oldest first.
    pub fn known_holders(&self, key: &K) -> Vec<Arc<H>> {
        let held = self.0.lock();
        let holders = held.by_claim.get(&Claim::One(key.clone()));
        holders.map_or_else(Vec::new, |holders| holders.values().cloned().collect())
    }

    /// Whether an object is held, or may be.
    pub fn is_held(&self, key: &K) -> bool {
        let held = self.0.lock();
        held.by_claim.contains_key(&Claim::Any)
            || held.by_claim.contains_key(&Claim::One(key.clone()))
    }
}

impl<K, H> Table<K, H> {
    fn lock(&self) -> MutexGuard<'_, Held<K, H>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone, H> Lease<K, H> {
    /// The object that it holds.
    pub fn claim(&self) -> &Claim<K> {
        &self.0.claim
    }

    /// The holder.
    pub fn holder(&self) -> &H {
        &self.0.holder
    }
}

impl<K: Ord + Clone, H> Drop for Entry<K, H> {
    fn drop(&mut self) {
        {
            let mut held = self.table.lock();
            if let Some(holders) = held.by_claim.get_mut(&self.claim) {
                holders.remove(&self.number);
                if holders.is_empty() {
                    held.by_claim.remove(&self.claim);
                }
            }
        }
        (self.table.released)();
    }
}

impl<K: Ord + Clone, H> Default for Leases<K, H> {
    /// An empty table whose owner need not know when a lease ends.
    fn default() -> Self {
        Self::new(|| ())
    }
}

impl<K, H> Clone for Leases<K, H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Ord + Clone, H> Clone for Lease<K, H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, H> fmt::Debug for Leases<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}

impl<K: Ord + Clone + fmt::Debug, H: fmt::Debug> fmt::Debug for Lease<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("claim", &self.0.claim)
            .field("holder", &self.0.holder)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn table() -> (Leases<u8, u32>, Arc<AtomicUsize>) {
        let released = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&released);
        let leases = Leases::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        (leases, released)
    }

    #[test]
    fn a_lease_ends_with_its_last_clone() {
        let (leases, released) = table();
        let lease = leases.take(Claim::One(1), 10);
        let clone = lease.clone();
        assert_eq!((lease.claim(), *lease.holder()), (&Claim::One(1), 10));
        drop(lease);
        assert!(leases.is_held(&1) && !leases.is_held(&2));
        assert_eq!(released.load(Ordering::SeqCst), 0);
        drop(clone);
        assert!(!leases.is_held(&1));
        assert_eq!(released.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_release_callback_may_use_the_table() {
        let slot: Arc<Mutex<Option<Leases<u8, u32>>>> = Arc::default();
        let (inner, seen) = (Arc::clone(&slot), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&seen);
        let leases = Leases::new(move || {
            let table = inner.lock().unwrap().clone().unwrap();
            count.fetch_add(usize::from(!table.is_held(&1)), Ordering::SeqCst);
        });
        *slot.lock().unwrap() = Some(leases.clone());
        drop(leases.take(Claim::One(1), 0));
        assert_eq!(seen.load(Ordering::SeqCst), 1);
        *slot.lock().unwrap() = None;
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(Option<u8>),
        Clone(usize),
        Drop(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            proptest::option::weighted(0.8, 0_u8..4).prop_map(Step::Take),
            any::<usize>().prop_map(Step::Clone),
            any::<usize>().prop_map(Step::Drop),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// The table against a list of all leases with the number of their clones.
        #[test]
        fn the_table_knows_who_holds_what(steps in steps()) {
            let (leases, released) = table();
            let mut ours: Vec<(u32, Option<u8>, Lease<u8, u32>)> = Vec::new();
            let (mut next, mut ended) = (0, 0);
            for step in steps {
                match step {
                    Step::Take(key) => {
                        let claim = key.map_or(Claim::Any, Claim::One);
                        ours.push((next, key, leases.take(claim, next)));
                        next += 1;
                    }
                    Step::Clone(at) if !ours.is_empty() => {
                        let clone = ours[at % ours.len()].clone();
                        ours.push(clone);
                    }
                    Step::Drop(at) if !ours.is_empty() => {
                        let (holder, _, _) = ours.remove(at % ours.len());
                        ended += usize::from(ours.iter().all(|(other, _, _)| *other != holder));
                    }
                    _ => {}
                }
                prop_assert_eq!(released.load(Ordering::SeqCst), ended);
                for key in 0..4 {
                    let of = |wanted: Option<u8>| {
                        let mut holders: Vec<u32> = ours
                            .iter()
                            .filter(|(_, claim, _)| *claim == wanted)
                            .map(|(holder, _, _)| *holder)
                            .collect();
                        holders.sort_unstable();
                        holders.dedup();
                        holders
                    };
                    let known = of(Some(key));
                    let all = [known.clone(), of(None)].concat();
                    let plain = |found: Vec<Arc<u32>>| -> Vec<u32> {
                        found.iter().map(|holder| **holder).collect()
                    };
                    prop_assert_eq!(leases.is_held(&key), !all.is_empty());
                    prop_assert_eq!(plain(leases.holders(&key)), all);
                    prop_assert_eq!(plain(leases.known_holders(&key)), known);
                }
            }
        }
    }
}
