//! The few lines that the resolver writes to its log, which is its standard error. They are bounded
//! together: the log lies in memory, and clients must not be able to fill it.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::LOG;

/// Writes a line, unless too much was written.
pub(crate) fn report(line: Arguments<'_>) {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let line = format!("{line}\n");
    if WRITTEN.fetch_add(line.len(), Ordering::Relaxed) < LOG {
        // There is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
