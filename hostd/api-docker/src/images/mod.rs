//! `/images/…`.

pub(crate) mod change;
pub(crate) mod list;
pub(crate) mod manifest;
mod pattern;
pub(crate) mod platform;
mod progress;
pub(crate) mod remote;
pub(crate) mod search;
pub(crate) mod show;
