//! `memory.stat`.

use super::pairs;

/// The names of the stored figures, sorted.
const NAMES: [&str; 33] = [
    "active_anon",
    "active_file",
    "anon",
    "anon_thp",
    "file",
    "file_dirty",
    "file_mapped",
    "file_writeback",
    "inactive_anon",
    "inactive_file",
    "kernel_stack",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pglazyfree",
    "pglazyfreed",
    "pgmajfault",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "shmem",
    "slab",
    "slab_reclaimable",
    "slab_unreclaimable",
    "sock",
    "thp_collapse_alloc",
    "thp_fault_alloc",
    "unevictable",
    "workingset_activate",
    "workingset_nodereclaim",
    "workingset_refault",
    "workingset_refault_anon",
    "workingset_refault_file",
];

/// The use of a cgroup's memory, and events of it, under the kernel's names. A figure that the
/// kernel does not report is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryDetails([u64; NAMES.len()]);

impl MemoryDetails {
    /// Reads `memory.stat`.
    pub fn parse(text: &[u8]) -> Self {
        let mut figures = [0; NAMES.len()];
        for (name, value) in pairs(text) {
            let found = NAMES.binary_search(&name).ok();
            if let Some(figure) = found.and_then(|at| figures.get_mut(at)) {
                *figure = value;
            }
        }
        Self(figures)
    }

    /// All figures with their names, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }

    /// The figure of a name; 0 if it is not stored.
    pub fn get(&self, name: &str) -> u64 {
        let found = NAMES.binary_search(&name).ok();
        found
            .and_then(|at| self.0.get(at).copied())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted() {
        assert!(NAMES.is_sorted());
    }
}
