//! `/images/…`.

pub(crate) mod change;
pub(crate) mod show;
