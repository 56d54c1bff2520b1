//! Objects that were removed while they were held: they are deleted after their last holder.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the store keeps objects only because they are held, and how these are deleted later.
///
/// Code that keeps a held object calls [`Doomed::mark`], and then checks again whether it is held.
/// Code that drops a lease calls [`Doomed::poke`] afterwards. So at least one of the two sees the
/// other's change.
#[derive(Default)]
pub(crate) struct Doomed {
    any: AtomicBool,
    /// Looks for objects that are no longer held, on a thread of its own.
    look: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Doomed {
    /// Sets the function that looks for them. Calls of [`Doomed::poke`] before this have no effect.
    pub(crate) fn set_look(&self, look: impl Fn() + Send + Sync + 'static) {
        let _ = self.look.set(Box::new(look));
    }

    /// An object is kept for a holder.
    pub(crate) fn mark(&self) {
        self.any.store(true, Ordering::SeqCst);
    }

    /// A lease was dropped.
    pub(crate) fn poke(&self) {
        if let Some(look) = self.look.get()
            && self.any.swap(false, Ordering::SeqCst)
        {
            look();
        }
    }
}

impl fmt::Debug for Doomed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doomed")
            .field("any", &self.any)
            .finish_non_exhaustive()
    }
}
