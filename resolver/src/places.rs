//! Limits the open queries to name servers, of all containers and of each.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::{CROWDED, IN_FLIGHT, IN_FLIGHT_OF_ONE, SHARE};

/// Counts open queries.
pub(crate) type Count = Rc<Cell<usize>>;

/// A query's place, freed on drop.
#[derive(Debug)]
pub(crate) struct Place {
    all: Count,
    own: Count,
}

impl Place {
    /// Takes a place, unless too many are taken.
    pub(crate) fn take(all: &Count, own: &Count) -> Option<Self> {
        let most = if all.get() < CROWDED {
            IN_FLIGHT_OF_ONE
        } else {
            SHARE
        };
        if all.get() >= IN_FLIGHT || own.get() >= most {
            return None;
        }
        for count in [all, own] {
            count.set(count.get() + 1);
        }
        let (all, own) = (all.clone(), own.clone());
        Some(Self { all, own })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for count in [&self.all, &self.own] {
            count.set(count.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_busy_containers_leave_room_for_others() {
        let all = Count::default();
        let mut held = Vec::new();
        let mut take_all = |own: &Count| {
            let before = held.len();
            held.extend(std::iter::from_fn(|| Place::take(&all, own)));
            held.len() - before
        };
        assert_eq!(take_all(&Count::default()), IN_FLIGHT_OF_ONE);
        assert_eq!(take_all(&Count::default()), IN_FLIGHT_OF_ONE);
        // Many queries are open now, and each of the other containers gets its share.
        let mut got = 0;
        for _ in 0..(IN_FLIGHT - CROWDED) / SHARE {
            got += take_all(&Count::default());
        }
        assert_eq!(got, IN_FLIGHT - CROWDED);
        assert_eq!(take_all(&Count::default()), 0);
        held.clear();
        assert_eq!(all.get(), 0);
    }
}
