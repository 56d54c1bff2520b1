//! Kernel modules: which one serves a device, and loading it. No libkmod, no decompressor: the
//! kernel takes the compressed file.

mod coldplug;
mod helper;
mod index;
mod load;
mod pattern;

pub(crate) use coldplug::aliases_of_devices;
pub(crate) use helper::{HELPER_COLDPLUG, HELPER_LOAD, coldplug, load_requests};
pub(crate) use load::{Loader, ModuleError, insert_file};
