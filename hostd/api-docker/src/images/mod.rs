//! `/images/…`.

pub(crate) mod change;
pub(crate) mod list;
mod manifest;
mod platform;
pub(crate) mod remote;
pub(crate) mod search;
pub(crate) mod show;
