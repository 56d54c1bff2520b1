//! Notices that somebody else has removed the link of a network.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use keelson_netlink::{Removals, Removed};

use super::KernelError;

/// The index of each network's link.
#[derive(Debug, Clone, Default)]
pub(super) struct Present(Arc<Mutex<BTreeMap<String, u32>>>);

impl Present {
    /// Records a network's link.
    pub(super) fn insert(&self, network: &str, index: u32) {
        self.with(|present| present.insert(network.to_owned(), index));
    }

    /// Forgets the link of a network, because we have removed it.
    pub(super) fn remove(&self, network: &str) {
        self.with(|present| present.remove(network));
    }

    /// Removes and returns the networks whose link was removed.
    fn take(&self, removed: &Removed) -> Vec<String> {
        let gone = |index: &u32| match removed {
            Removed::Links(links) => links.contains(index),
            Removed::Anything => true,
        };
        self.with(|present| {
            let taken = present.extract_if(.., |_, index| gone(index));
            taken.map(|(network, _)| network).collect()
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, u32>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reports networks whose link vanished.
pub(crate) struct Watch {
    pub(super) removals: Removals,
    pub(super) present: Present,
}

impl Watch {
    /// Waits until links of networks vanish, and returns the networks' identifiers. Call
    /// `Kernel::restore` for each of them; that changes nothing if the link exists after all.
    pub(crate) async fn vanished(&mut self) -> Result<Vec<String>, KernelError> {
        loop {
            let removed = self.removals.next().await?;
            let networks = self.present.take(&removed);
            if !networks.is_empty() {
                return Ok(networks);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_networks_of_removed_links_are_reported_and_only_once() {
        let present = Present::default();
        present.insert("a", 3);
        present.insert("b", 4);
        present.insert("c", 5);
        present.remove("c");
        let removed = Removed::Links(vec![4, 5, 9]);
        assert_eq!(present.take(&removed), ["b"]);
        assert!(present.take(&removed).is_empty());
        assert_eq!(present.take(&Removed::Anything), ["a"]);
    }
}
