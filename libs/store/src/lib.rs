//! Versioned documents on disk, written so that a crash leaves the old or the new one.
