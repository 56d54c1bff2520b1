//! `/images/…`.

pub(crate) mod change;
pub(crate) mod remote;
pub(crate) mod show;
