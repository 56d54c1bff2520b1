//! Bounds the bytes of answers that clients have not read yet.
//!
//! An answer that is made as a whole (a list, a container with its labels) stays in memory until the
//! client has read it. The number of connections bounds small answers, a budget bounds large ones.

use std::sync::Arc;

use keelson_model::host_api::Role;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers up to this size, in bytes, need no part of the budget.
const SMALL: u64 = 32 << 10;
/// Most KiB of large answers that are not read yet.
const ALL: u32 = 48 << 10;
/// Most KiB of them for readers.
const READERS: u32 = 16 << 10;

/// The budget.
#[derive(Debug)]
pub(crate) struct Answers {
    all: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

/// A part of the budget. Dropping it returns the part.
#[derive(Debug)]
pub(crate) struct Held {
    _parts: [Option<OwnedSemaphorePermit>; 2],
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL as usize)),
            readers: Arc::new(Semaphore::new(READERS as usize)),
        }
    }
}

impl Answers {
    /// Reserves the memory of an answer. `None`: too many bytes are not read yet. There is no
    /// waiting, because the answer is in memory already.
    pub(crate) fn take(&self, size: u64, role: Role) -> Option<Held> {
        if size <= SMALL {
            return Some(Held {
                _parts: [None, None],
            });
        }
        let size = u32::try_from(size.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let part = |of: &Arc<Semaphore>, most: u32| {
            // An answer that is larger than the budget takes all of it.
            Arc::clone(of).try_acquire_many_owned(size.min(most)).ok()
        };
        let readers = match role {
            Role::Reader => Some(part(&self.readers, READERS)?),
            Role::Admin | Role::Operator => None,
        };
        Some(Held {
            _parts: [Some(part(&self.all, ALL)?), readers],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_have_a_budget() {
        let answers = Answers::default();
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(answers.take(1 << 20, Role::Reader).unwrap());
        }
        assert!(answers.take(1 << 20, Role::Reader).is_none());
        assert!(answers.take(1 << 10, Role::Reader).is_some());
        held.push(answers.take(32 << 20, Role::Admin).unwrap());
        assert!(answers.take(1 << 20, Role::Admin).is_none());
        held.clear();
        assert!(answers.take(1 << 40, Role::Admin).is_some());
    }
}
