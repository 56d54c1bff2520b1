//! Locks of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The value, also when its last user panicked: no change here is made in steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
