//! Keeps the kernel's table as it should be.

use std::sync::{Mutex, MutexGuard, PoisonError};

use keelson_nftables::{Batch, Element, Monitor, Netfilter, NftError, Value};

use super::flows::Sweeper;
use super::foreign;
use super::part::{Elements, Part};
use super::table::{self, TABLE};
use super::transit::Transit;
use crate::settings::FilterOptions;

/// Why the packet filter could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The kernel refuses, or the socket fails. Nothing was changed.
    #[error("packet filter: {0}")]
    Kernel(#[from] NftError),
    /// Waiting for reports of changes failed.
    #[error("packet filter: can't wait for reports of changes: {0}")]
    Wait(#[source] std::io::Error),
}

/// The packet filter of containers: the table `inet keelson` in the network namespace of the thread that
/// opened it. Its calls block for a fraction of a millisecond.
#[derive(Debug)]
pub(crate) struct Firewall {
    state: Mutex<State>,
    options: FilterOptions,
    pub(super) sweeper: Sweeper,
    /// Taken by [`Self::watch`].
    pub(super) monitor: Mutex<Option<Monitor>>,
}

#[derive(Debug)]
struct State {
    netfilter: Netfilter,
    /// The desired content of the table.
    elements: Elements,
    transit: Transit,
}

impl Firewall {
    /// Opens the packet filter. The kernel's table is not changed before [`Self::restore`] is
    /// called, so that running containers keep their ports meanwhile.
    ///
    /// # Errors
    /// There is no such part of the kernel, or the caller may not use it.
    pub(crate) fn open(transit: Transit, options: FilterOptions) -> Result<Self, FirewallError> {
        let netfilter = Netfilter::open()?;
        // Subscribe before the table is made, so that no report is missed.
        let monitor = Monitor::open(TABLE, netfilter.port())?;
        let sweeper = Sweeper::new(Netfilter::open()?);
        Ok(Self {
            state: Mutex::new(State {
                netfilter,
                elements: Elements::default(),
                transit,
            }),
            options,
            sweeper,
            monitor: Mutex::new(Some(monitor)),
        })
    }

    /// Replaces the table by one with exactly these elements, in one transaction: packets meet
    /// either the old table or the complete new one.
    ///
    /// # Errors
    /// The kernel refuses. The old table is kept.
    pub(crate) fn restore(&self, everything: Elements) -> Result<(), FirewallError> {
        self.make(&mut self.state(), everything)
    }

    /// Adds and removes elements, in one transaction. Elements that exist already, or are gone
    /// already, are no error, so the call can be repeated. An element that now belongs to another
    /// endpoint is not removed.
    ///
    /// # Errors
    /// The kernel refuses; then nothing was changed.
    pub(crate) fn apply(&self, add: &Elements, remove: &Elements) -> Result<(), FirewallError> {
        let state = &mut *self.state();
        let mut next = None;
        let mut gone = Elements::default();
        let mut new = Elements::default();
        for (part, key, datum) in remove.iter() {
            let stays = add.contains(part, key, datum);
            if state.elements.contains(part, key, datum) && !stays {
                gone.put(part, key, datum.clone());
            }
        }
        for (part, key, datum) in add.iter() {
            match state.elements.get(part, key) {
                Some(old) if old == datum => continue,
                Some(old) => gone.put(part, key, old.clone()),
                None => {}
            }
            new.put(part, key, datum.clone());
        }
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        match state.netfilter.commit(&changes(&gone, &new)) {
            Ok(()) => {}
            // Somebody has deleted or changed the table, and it is not restored yet.
            Err(error) if error.is_missing() || error.is_other() => {
                tracing::warn!(%error, "the packet filter is not as it was left: making it anew");
                let mut all = state.elements.clone();
                for (part, key, _) in gone.iter() {
                    all.remove(part, key);
                }
                all.merge(new.clone());
                next = Some(all);
            }
            Err(error) => return Err(error.into()),
        }
        match next {
            Some(all) => self.make(state, all)?,
            None => {
                for (part, key, _) in gone.iter() {
                    state.elements.remove(part, key);
                }
                state.elements.merge(new.clone());
                let went = gone.iter().map(|(part, key, _)| (part, key, None));
                let came = new.iter();
                // Removals come first, since an element may be replaced.
                self.sweeper
                    .add(went.chain(came.map(|(part, key, datum)| (part, key, datum.as_ref()))));
            }
        }
        Ok(())
    }

    /// From now on drops forwarded packets of a family that do not belong to containers.
    ///
    /// # Errors
    /// The kernel refuses; then nothing was changed.
    pub(crate) fn drop_transit(&self, ipv6: bool) -> Result<(), FirewallError> {
        let state = &mut *self.state();
        let before = state.transit.clone();
        match ipv6 {
            false => state.transit.drop_ipv4 = true,
            true => state.transit.drop_ipv6 = true,
        }
        if state.transit == before {
            return Ok(());
        }
        let elements = state.elements.clone();
        let made = self.make(state, elements);
        if made.is_err() {
            state.transit = before;
        }
        made
    }

    /// Describes what other tables do to containers' packets, one text for each: our accept is not
    /// final, any other chain may drop the packet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn warnings(&self) -> Result<Vec<String>, FirewallError> {
        let chains = self.state().netfilter.base_chains()?;
        Ok(foreign::warnings(&chains, TABLE))
    }

    /// Replaces the table by the desired one, unless it is correct.
    pub(super) fn repair(&self, known_to_differ: bool) -> Result<bool, FirewallError> {
        let state = &mut *self.state();
        if !known_to_differ && state.is_whole(self.options)? {
            return Ok(false);
        }
        let elements = state.elements.clone();
        self.make(state, elements)?;
        Ok(true)
    }

    fn make(&self, state: &mut State, mut elements: Elements) -> Result<(), FirewallError> {
        for (from, to) in &state.transit.between {
            let key = [Value::Name(from.clone()), Value::Name(to.clone())];
            elements.put(Part::Transit, key, None);
        }
        let batch = table::whole(&elements, &state.transit, self.options);
        state.netfilter.commit(&batch)?;
        state.elements = elements;
        // While the table was missing, connections started without it.
        let all = state.elements.iter();
        self.sweeper
            .add(all.map(|(part, key, datum)| (part, key, datum.as_ref())));
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn transit(&self) -> Transit {
        self.state().transit.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the table has the elements that it should have, and as many rules.
    fn is_whole(&mut self, options: FilterOptions) -> Result<bool, FirewallError> {
        if self.netfilter.rules(TABLE)? != table::rules(&self.transit, options).len() {
            return Ok(false);
        }
        for part in Part::ALL {
            let listed = self.netfilter.elements(TABLE, &part.set(), table::TARGETS);
            let mut found = match listed {
                Ok(found) => found,
                Err(error) if error.is_missing() => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            found.sort();
            if found != self.elements.of(part) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The transaction that removes elements and adds others.
fn changes(gone: &Elements, new: &Elements) -> Batch {
    let mut batch = Batch::new();
    let of = |elements: &Elements, part| -> Vec<Element> { elements.of(part) };
    for part in Part::ALL {
        batch.delete_elements(TABLE, &part.set(), &of(gone, part));
    }
    for part in Part::ALL {
        batch.add_elements(TABLE, &part.set(), &of(new, part));
    }
    batch
}
