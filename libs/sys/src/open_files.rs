//! The limit of open files of this process, and of the programs that it starts.
//!
//! A daemon with many clients needs far more descriptors than the usual 1024. What it starts must
//! not inherit that: programs that use select(2) break with descriptors above 1023, and others walk
//! through all possible ones.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many a daemon wants at least, also where its hard limit is lower and it may raise that.
const WANTED: u64 = 65_536;
/// More are of no use.
const MOST: u64 = 1 << 20;

/// Soft and hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// To what the soft limit may be raised.
    pub hard: u64,
}

static ORIGINAL: OnceLock<Limit> = OnceLock::new();

/// The limit now.
pub fn current() -> Limit {
    let limit = getrlimit(Resource::Nofile);
    Limit {
        // The kernel's word for no limit.
        soft: limit.current.unwrap_or(u64::MAX),
        hard: limit.maximum.unwrap_or(u64::MAX),
    }
}

/// The limit that [`raise`] found; `None`: it was not called.
pub(crate) fn original() -> Option<Limit> {
    ORIGINAL.get().copied()
}

/// Raises this process's limit as far as possible, and returns the new soft limit. Programs started
/// by [`crate::spawn`] get the limit from before.
///
/// # Errors
/// The kernel refuses also what the hard limit allows.
pub fn raise() -> io::Result<u64> {
    let before = *ORIGINAL.get_or_init(current);
    let set = |soft: u64, hard: u64| {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(soft),
                maximum: Some(hard),
            },
        )
    };
    // Beyond the hard limit it takes CAP_SYS_RESOURCE.
    if before.hard < WANTED && set(WANTED, WANTED).is_ok() {
        return Ok(WANTED);
    }
    let soft = before.hard.min(MOST);
    set(soft, before.hard)?;
    Ok(soft)
}
