//! Memory of a machine, from its /proc/meminfo (proc_meminfo(5)).

use anyhow::{Context, Result};

/// KiB in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// What is neither free nor a cache: `MemAvailable` would also count what the kernel wants to keep
    /// free, and hide what is used.
    pub(super) used: u64,
    /// What programs allocated.
    pub(super) anonymous: u64,
}

impl Memory {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let value = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key == name).then_some(value)
            });
            let line = line.with_context(|| format!("/proc/meminfo has no {name}"))?;
            let number = line.trim().trim_end_matches(" kB");
            number
                .parse()
                .with_context(|| format!("{name} of /proc/meminfo"))
        };
        let caches = ["MemFree", "Buffers", "Cached", "SReclaimable"];
        let mut used = value("MemTotal")?;
        for name in caches {
            used = used.saturating_sub(value(name)?);
        }
        Ok(Self {
            used,
            anonymous: value("AnonPages")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_not_in_use() {
        let text = "MemTotal:  1000 kB\nMemFree: 500 kB\nMemAvailable: 1 kB\nBuffers: 10 kB\n\
            Cached: 90 kB\nSwapCached: 7 kB\nAnonPages: 33 kB\nSReclaimable: 50 kB\n";
        let memory = Memory::parse(text).unwrap();
        assert_eq!((memory.used, memory.anonymous), (350, 33));
        assert!(Memory::parse("MemTotal: 1 kB").is_err());
    }
}
