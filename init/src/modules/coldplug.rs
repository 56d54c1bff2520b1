//! The devices that existed before anybody listened for uevents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::files::{entries, first_line};

/// The `modalias` of every device under `sys` (a sysfs mount): those on a bus, and input devices,
/// which have one although they are on no bus.
pub(crate) fn aliases_of_devices(sys: &Path) -> BTreeSet<String> {
    let mut directories: Vec<PathBuf> = entries(&sys.join("bus"))
        .into_iter()
        .map(|bus| bus.join("devices"))
        .collect();
    directories.push(sys.join("class/input"));
    directories.push(sys.join("class/dmi"));
    let mut aliases = BTreeSet::new();
    for directory in directories {
        for device in entries(&directory) {
            if let Some(alias) = first_line(device.join("modalias"))
                && !alias.is_empty()
            {
                aliases.insert(alias);
            }
        }
    }
    aliases
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn finds_bus_and_input_devices() {
        let sys = tempfile::tempdir().unwrap();
        for (device, alias) in [
            ("bus/pci/devices/0000:00:01.0", "pci:v1\n"),
            ("bus/cpu/devices/cpu0", "\n"),
            ("class/input/input0", "input:b0019\n"),
        ] {
            let directory = sys.path().join(device);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("modalias"), alias).unwrap();
        }
        fs::create_dir_all(sys.path().join("bus/acpi")).unwrap();
        let aliases = aliases_of_devices(sys.path());
        assert_eq!(Vec::from_iter(aliases), ["input:b0019", "pci:v1"]);
    }
}
