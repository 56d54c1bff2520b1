//! The resolver's log: a few lines on standard error. Their total length is limited, because the
//! log is in memory and clients must not be able to fill it.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::LOG;

/// Writes a line, unless the limit is reached.
pub(crate) fn report(line: Arguments<'_>) {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let line = format!("{line}\n");
    if WRITTEN.fetch_add(line.len(), Ordering::Relaxed) < LOG {
        // Nobody could be told about a failure.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
