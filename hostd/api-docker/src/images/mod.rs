//! `/images/…`.

pub(crate) mod change;
pub(crate) mod list;
mod manifest;
mod pattern;
mod platform;
mod progress;
pub(crate) mod remote;
pub(crate) mod search;
pub(crate) mod show;
