//! The limit of open files of this process, and of the programs that it starts.
//!
//! A daemon with many clients needs far more descriptors than the usual 1024. The programs that it
//! starts must not inherit that limit: programs that use select(2) break with descriptors above
//! 1023, and others loop over all possible numbers.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many a daemon needs at least. It raises a lower hard limit if it may.
const WANTED: u64 = 65_536;
/// More are not needed.
const MOST: u64 = 1 << 20;

/// Soft and hard limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFilesLimit {
    /// The limit in force.
    pub soft: u64,
    /// The highest value for the soft limit.
    pub hard: u64,
}

static ORIGINAL: OnceLock<OpenFilesLimit> = OnceLock::new();

/// The limit now.
pub fn current() -> OpenFilesLimit {
    let limit = getrlimit(Resource::Nofile);
    OpenFilesLimit {
        // The kernel's value for no limit.
        soft: limit.current.unwrap_or(u64::MAX),
        hard: limit.maximum.unwrap_or(u64::MAX),
    }
}

/// The limit that [`raise`] found; `None`: it was not called.
pub(crate) fn original() -> Option<OpenFilesLimit> {
    ORIGINAL.get().copied()
}

/// Raises this process's limit as far as possible, and returns the new soft limit. Programs started
/// by [`crate::spawn`] get the limit from before.
///
/// # Errors
/// The kernel refuses even a value within the hard limit.
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
    // Raising the hard limit needs CAP_SYS_RESOURCE.
    if before.hard < WANTED && set(WANTED, WANTED).is_ok() {
        return Ok(WANTED);
    }
    let soft = before.hard.min(MOST);
    set(soft, before.hard)?;
    Ok(soft)
}
