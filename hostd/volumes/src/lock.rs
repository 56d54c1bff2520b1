//! Locks of this crate.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the value even if its last user panicked: every change here is made in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
