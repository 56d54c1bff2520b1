//! What was removed while it was held goes with its last holder.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether something was left in the store only because somebody holds it, and how it is removed
/// when that ends.
///
/// Who leaves something calls [`Doomed::mark`] and then looks again whether it is held; who gives
/// something up calls [`Doomed::poke`] after that. One of the two sees the other.
#[derive(Default)]
pub(crate) struct Doomed {
    any: AtomicBool,
    /// Looks for what is not held any more, on a thread of its own.
    look: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Doomed {
    /// Says how to look. Calls before are lost.
    pub(crate) fn set_look(&self, look: impl Fn() + Send + Sync + 'static) {
        let _ = self.look.set(Box::new(look));
    }

    /// Something is left.
    pub(crate) fn mark(&self) {
        self.any.store(true, Ordering::SeqCst);
    }

    /// Something was given up.
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
