//! Loads modules in a separate process. Probing a device can take seconds, and the indexes need
//! memory; both must not happen in PID 1, so it executes its own binary for this. The same command
//! line is for the kernel, which calls `kernel.modprobe` as `modprobe -q -- NAME`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use keelson_model::provision::{DIRECTORY, STATUS_FILE};

use super::{Loader, ModuleOptions};
use crate::cmdline::CommandLine;
use crate::console;

/// First argument that loads the always-needed modules and those of the devices present.
pub(crate) const HELPER_COLDPLUG: &str = "coldplug";
/// First argument that loads the modules for the aliases in the other arguments.
pub(crate) const HELPER_LOAD: &str = "load";

/// A driver can bring up a bus with more devices. How many times they are searched; deeper chains
/// are found by uevents.
const ROUNDS: usize = 4;

/// Modules that may be needed to read the machine's configuration: the boot waits only for these.
const CONFIGURATION: [&str; 1] = ["qemu_fw_cfg"];
/// The power button: a press before its driver is loaded is lost. The handler of events comes
/// first, so that the button's node exists from the beginning.
const POWER_BUTTON: [&str; 2] = ["evdev", "button"];
/// The report to the boot when they are loaded, see [`coldplug`].
const CONFIGURATION_LOADED: &[u8] = b"configuration sources\n";
/// Later work must not delay the processes that start the API.
const NICE: i32 = 10;

/// Loads the modules that every boot needs and those for the present devices. Returns the number of
/// failures; each is printed.
///
/// A line on standard output reports that the modules for the configuration are loaded. The rest
/// takes seconds on a slow machine, and nothing waits for it: code that needs a module earlier
/// makes the kernel ask for it by name.
pub(crate) fn coldplug() -> usize {
    let command_line = CommandLine::read();
    let seed_disk = may_have_seed(&command_line);
    let mut loader = Loader::open(options(command_line));
    let mut failures = 0;
    for module in CONFIGURATION {
        failures += report(loader.load_named(module));
    }
    if seed_disk {
        failures += load_storage(&mut loader);
    }
    // The listener may have ended, or a person started this program.
    let mut output = std::io::stdout();
    let _ = output.write_all(CONFIGURATION_LOADED);
    let _ = output.flush();
    for module in POWER_BUTTON {
        failures += report(loader.load_named(module));
    }
    let _ = rustix::process::nice(NICE);
    let mut known = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut fresh = aliases_of_new_devices(&known);
        if fresh.is_empty() {
            break;
        }
        let mut ordered: Vec<&String> = fresh.iter().collect();
        ordered.sort_by_key(|alias| urgency(alias));
        for alias in ordered {
            failures += report(loader.load_for_device(alias));
        }
        known.append(&mut fresh);
    }
    failures + report(loader.load_always())
}

/// With the options that the configuration says. Early in the boot it is not merged yet; then the
/// layers that are on the disk count.
fn options(command_line: CommandLine) -> ModuleOptions {
    let config = keelson_config::current(&keelson_config::Sources::machine()).config;
    ModuleOptions::with(command_line, config.modules.options)
}

/// Whether a disk may hold the machine's first configuration, so that the boot has to wait for the
/// disks: nothing was read before, or somebody says that there is a seed.
fn may_have_seed(command_line: &CommandLine) -> bool {
    let read_before = Path::new(DIRECTORY).join(STATUS_FILE).exists();
    let serial = std::fs::read("/sys/class/dmi/id/product_serial").unwrap_or_default();
    !read_before
        || command_line.has("ds")
        || command_line.has("ci.ds")
        || serial.starts_with(b"ds=")
}

/// Loads the modules of disks and drives. Drivers have found theirs when their module is loaded.
fn load_storage(loader: &mut Loader) -> usize {
    let mut known = BTreeSet::new();
    let mut failures = 0;
    for _ in 0..ROUNDS {
        let mut fresh = aliases_of_new_devices(&known);
        fresh.retain(|alias| is_storage(alias));
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

/// Controllers (PCI base class 1), disks and drives.
fn is_storage(alias: &str) -> bool {
    match alias.split_once(':') {
        Some(("pci", rest)) => rest.contains("bc01"),
        // Block device and SCSI host (virtio 1.2, chapter 5).
        Some(("virtio", rest)) => rest.starts_with("d00000002") || rest.starts_with("d00000008"),
        // SCSI and IDE of Hyper-V.
        Some(("vmbus", rest)) => {
            rest.starts_with("d96361baa104294db60572e2ffb1dc7f")
                || rest.starts_with("32264132cb86a2449b5c50d1417354f5")
        }
        Some(("scsi" | "xen", _)) => true,
        _ => false,
    }
}

/// Network first, because other parts wait for it; accelerators of the processor last.
fn urgency(alias: &str) -> u8 {
    match alias.split(':').next() {
        Some("virtio" | "vmbus" | "xen") => 0,
        Some("pci") => 1,
        Some("cpu") => 3,
        _ => 2,
    }
}

fn aliases_of_new_devices(known: &BTreeSet<String>) -> BTreeSet<String> {
    let mut aliases = super::aliases_of_devices(Path::new("/sys"));
    aliases.retain(|alias| !known.contains(alias));
    aliases
}

/// Loads the modules for each of `requests`: device aliases, requests of the kernel, module names.
/// Returns the number of failures; each is printed. A request without a module is not a failure.
pub(crate) fn load_requests<I: IntoIterator<Item = String>>(requests: I) -> usize {
    let mut loader = Loader::open(options(CommandLine::read()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_told_from_other_devices() {
        for (alias, storage) in [
            (
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                true,
            ),
            (
                "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
                false,
            ),
            ("virtio:d00000002v00001AF4", true),
            ("virtio:d00000001v00001AF4", false),
            ("scsi:t-0x05", true),
            ("cpu:type:x86", false),
        ] {
            assert_eq!(is_storage(alias), storage, "{alias}");
        }
    }
}
