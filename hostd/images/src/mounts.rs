//! Mounts of layers.

/// Keeps layers mounted.
#[derive(Debug)]
pub(crate) struct Hold;
