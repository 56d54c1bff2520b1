//! Serialises the operations that create, find or remove a volume, by its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::VolumeError;
use crate::lock::lock;

/// How many operations may wait for one name while a plugin is asked. Each of them occupies a
/// thread.
const MOST_WAITING: usize = 16;

/// The names with a running operation.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<String, Arc<Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    turn: Mutex<()>,
    waiting: AtomicUsize,
    slow: AtomicBool,
}

/// Tells other operations how long the work on a name may take.
pub(crate) struct Turn<'a>(&'a Entry);

impl Turn<'_> {
    /// From now on the work asks a plugin.
    pub(crate) fn asks_a_plugin(&self) {
        self.0.slow.store(true, Ordering::Release);
    }
}

impl Names {
    /// Does work on a name, once no other operation works on it.
    ///
    /// # Errors
    /// The errors of the work, and [`VolumeError::Busy`].
    pub(crate) fn turn<T>(
        &self,
        name: &str,
        work: impl FnOnce(&Turn<'_>) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let entry = {
            let mut all = lock(&self.0);
            let entry = Arc::clone(all.entry(name.to_owned()).or_default());
            if entry.waiting.fetch_add(1, Ordering::AcqRel) > MOST_WAITING
                && entry.slow.load(Ordering::Acquire)
            {
                entry.waiting.fetch_sub(1, Ordering::AcqRel);
                return Err(VolumeError::Busy(name.to_owned()));
            }
            entry
        };
        let done = {
            let _turn = lock(&entry.turn);
            let done = work(&Turn(&entry));
            entry.slow.store(false, Ordering::Release);
            done
        };
        let mut all = lock(&self.0);
        if entry.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            all.remove(name);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_operation_works_on_a_name_and_waiters_are_limited() {
        let names = Names::default();
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let names = &names;
            scope.spawn(move || {
                names.turn("a", |turn| {
                    turn.asks_a_plugin();
                    begun.send(()).unwrap();
                    may_end.recv().unwrap();
                    Ok(())
                })
            });
            has_begun.recv().unwrap();
            // Another name does not wait.
            names.turn("b", |_| Ok(())).unwrap();
            let waiting: Vec<_> = (0..MOST_WAITING)
                .map(|_| scope.spawn(|| names.turn("a", |_| Ok(()))))
                .collect();
            while lock(&names.0)["a"].waiting.load(Ordering::Acquire) <= MOST_WAITING {
                std::thread::yield_now();
            }
            let refused = names.turn("a", |_| Ok(())).unwrap_err();
            assert!(matches!(refused, VolumeError::Busy(_)), "{refused}");
            end.send(()).unwrap();
            for waiter in waiting {
                waiter.join().unwrap().unwrap();
            }
        });
        assert!(lock(&names.0).is_empty());
    }
}
