//! The mapping of a container's users to users of the host.

use serde::{Deserialize, Serialize};

/// The users and groups of a user namespace: `id` inside is `base + id` outside. Those from `size` on
/// do not exist inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    /// The host's id of the container's root.
    pub base: u32,
    /// The number of ids.
    pub size: u32,
}

impl UserRange {
    /// Translates an id of the container to the host's.
    pub fn outside(self, id: u32) -> Option<u32> {
        match id < self.size {
            true => self.base.checked_add(id),
            false => None,
        }
    }

    /// Translates an id of the host to the container's.
    pub fn inside(self, id: u32) -> Option<u32> {
        id.checked_sub(self.base).filter(|id| *id < self.size)
    }

    /// Whether the kernel accepts the range: it is not empty, and does not contain the invalid id
    /// (`-1`).
    pub fn is_valid(self) -> bool {
        self.size > 0 && self.base.checked_add(self.size).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let range = UserRange {
            base: 100_000,
            size: 65_536,
        };
        for (inside, outside) in [(0, 100_000), (65_535, 165_535)] {
            assert_eq!(range.outside(inside), Some(outside));
            assert_eq!(range.inside(outside), Some(inside));
        }
        assert_eq!(range.outside(65_536), None);
        assert_eq!((range.inside(0), range.inside(165_536)), (None, None));
        assert!(range.is_valid());
        for (base, size) in [(0, 0), (u32::MAX, 1), (1, u32::MAX)] {
            assert!(!UserRange { base, size }.is_valid(), "{base} {size}");
        }
    }
}
