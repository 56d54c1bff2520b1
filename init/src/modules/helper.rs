//! Module loading in a process of its own. Probing a device can take seconds and the indexes take
//! memory: neither belongs into PID 1, which executes its own binary for this instead. The same
//! command line serves the kernel, which calls `kernel.modprobe` as `modprobe -q -- NAME`.

use std::collections::BTreeSet;
use std::path::Path;

use super::Loader;
use crate::cmdline::CommandLine;
use crate::console;

/// First argument that loads the always-needed modules and those of the devices present.
pub(crate) const HELPER_COLDPLUG: &str = "coldplug";
/// First argument that loads the modules for the aliases in the other arguments.
pub(crate) const HELPER_LOAD: &str = "load";

/// A driver can bring up a bus with further devices; deeper chains than this come as uevents.
const ROUNDS: usize = 4;

/// Loads what every boot needs and what the devices present need. Answers the number of failures;
/// each one is printed.
pub(crate) fn coldplug() -> usize {
    let mut loader = Loader::open(CommandLine::read());
    let mut failures = report(loader.load_always());
    let mut known = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut fresh = aliases_of_new_devices(&known);
        if fresh.is_empty() {
            break;
        }
        for alias in &fresh {
            failures += report(loader.load_for_device(alias));
        }
        known.append(&mut fresh);
    }
    failures
}

fn aliases_of_new_devices(known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut aliases = super::aliases_of_devices(Path::new("/sys"));
    aliases.retain(|alias| !known.contains(alias));
    aliases
}

/// Loads what serves each of `requests`: device aliases, requests of the kernel, module names.
/// Answers whether every request was known and loaded.
pub(crate) fn load_requests<I: IntoIterator<Item = String>>(requests: I) -> usize {
    let mut loader = Loader::open(CommandLine::read());
    requests
        .into_iter()
        .map(|request| report(loader.load_for_device(&request)))
        .sum()
}

fn report(errors: Vec<super::ModuleError>) -> usize {
    for error in &errors {
        console::warning(&error.to_string());
    }
    errors.len()
}
