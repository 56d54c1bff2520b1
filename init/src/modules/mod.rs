//! Kernel modules: finds those for a device, and loads them. Neither libkmod nor a decompressor is
//! needed: the kernel accepts the compressed file.

mod coldplug;
mod helper;
mod index;
mod load;
mod pattern;

pub(crate) use coldplug::aliases_of_devices;
pub(crate) use helper::{HELPER_COLDPLUG, HELPER_LOAD, coldplug, load_requests};
pub(crate) use load::{Loader, ModuleError, ModuleOptions, insert_file};
