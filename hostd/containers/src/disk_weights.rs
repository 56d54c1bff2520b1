//! Switches on the kernel's cost model (`io.cost.qos`) of the disks that weights are requested for.
//! Without it, or the BFQ scheduler, a weight changes nothing, and the kernel refuses those of
//! single disks. It costs each transfer a little, so disks that nobody weighs do without.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keelson_model::spec::IoLimits;

use crate::devices::BlockDevice;
use crate::engine::Inner;

/// How many devices may lie upon each other: partition, encryption, volume group, array.
const LAYERS: u32 = 8;

impl Inner {
    /// Switches it on for the disks of these limits. `devices`: those that the limits name, in their
    /// order. What the kernel refuses is only logged: as with Docker, the weight then changes nothing.
    pub(crate) fn weigh_disks(&self, io: &IoLimits, devices: &[BlockDevice]) {
        let Some(mount) = &self.facts.cgroup_mount else {
            return;
        };
        let named = io.devices.iter().zip(devices);
        let named = named.filter(|(limits, _)| limits.weight.is_some());
        let mut weighed: Vec<_> = named.map(|(_, device)| *device).collect();
        if io.weight.is_some() {
            // Those of images, writable layers and volumes.
            weighed.extend(device_of(&self.root));
        }
        let kernel = Kernel {
            qos: mount.join("io.cost.qos"),
            devices: PathBuf::from("/sys/dev/block"),
        };
        kernel.switch_on(&weighed);
    }
}

/// The device of a directory's file system.
fn device_of(directory: &Path) -> Option<BlockDevice> {
    let device = fs::metadata(directory).ok()?.dev();
    Some(BlockDevice {
        major: rustix::fs::major(device),
        minor: rustix::fs::minor(device),
    })
}

struct Kernel {
    /// A line for each disk whose model was ever set.
    qos: PathBuf,
    /// Links from numbers to devices.
    devices: PathBuf,
}

impl Kernel {
    fn switch_on(&self, weighed: &[BlockDevice]) {
        let mut disks = BTreeSet::new();
        for BlockDevice { major, minor } in weighed {
            self.disks(&format!("{major}:{minor}"), LAYERS, &mut disks);
        }
        if disks.is_empty() {
            return;
        }
        let set = match fs::read_to_string(&self.qos) {
            Ok(set) => set,
            Err(error) => {
                tracing::debug!(%error, "the kernel has no cost model of disks");
                return;
            }
        };
        let is_set = |disk: &str| {
            let mut names = set
                .lines()
                .filter_map(|line| line.split_whitespace().next());
            names.any(|name| name == disk)
        };
        // What an operator has set, or switched off, stays so.
        for disk in disks.iter().filter(|disk| !is_set(disk)) {
            let file = fs::File::options().append(true).open(&self.qos);
            let line = format!("{disk} enable=1 ctrl=auto\n");
            match file.and_then(|mut file| file.write_all(line.as_bytes())) {
                Ok(()) => tracing::info!(disk, "shares of disk time are weighed"),
                Err(error) => tracing::warn!(disk, %error, "shares of disk time are not weighed"),
            }
        }
    }

    /// Finds the whole disks under a device; file systems without one have none.
    fn disks(&self, number: &str, layers: u32, found: &mut BTreeSet<String>) {
        let Ok(mut device) = fs::canonicalize(self.devices.join(number)) else {
            return;
        };
        if device.join("partition").exists() {
            device.pop();
        }
        let parts = fs::read_dir(device.join("slaves"));
        let parts: Vec<_> = parts.into_iter().flatten().flatten().collect();
        if let (true, Ok(number)) = (parts.is_empty(), fs::read_to_string(device.join("dev"))) {
            found.insert(number.trim().to_owned());
        }
        for part in parts.iter().filter(|_| layers > 0) {
            if let Ok(number) = fs::read_to_string(part.path().join("dev")) {
                self.disks(number.trim(), layers - 1, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A disk 8:0 with a partition 8:1, an array 9:0 on that and on 8:16, and a cgroup mount.
    fn machine(base: &Path) -> Kernel {
        let devices = base.join("dev/block");
        fs::create_dir_all(&devices).unwrap();
        for (path, number) in [
            ("sda", "8:0"),
            ("sda/sda1", "8:1"),
            ("sdb", "8:16"),
            ("md0", "9:0"),
        ] {
            let device = base.join(path);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("dev"), format!("{number}\n")).unwrap();
            symlink(&device, devices.join(number)).unwrap();
        }
        fs::write(base.join("sda/sda1/partition"), "1\n").unwrap();
        fs::create_dir(base.join("md0/slaves")).unwrap();
        for (name, part) in [("sda1", "sda/sda1"), ("sdb", "sdb")] {
            symlink(base.join(part), base.join("md0/slaves").join(name)).unwrap();
        }
        fs::write(base.join("io.cost.qos"), "").unwrap();
        Kernel {
            qos: base.join("io.cost.qos"),
            devices,
        }
    }

    const fn device(major: u32, minor: u32) -> BlockDevice {
        BlockDevice { major, minor }
    }

    #[test]
    fn whole_disks_are_switched_on_once() {
        let base = tempfile::tempdir().unwrap();
        let kernel = machine(base.path());
        let set = || fs::read_to_string(&kernel.qos).unwrap();
        // A file system without a disk.
        kernel.switch_on(&[device(0, 40)]);
        assert_eq!(set(), "");
        kernel.switch_on(&[device(8, 1)]);
        assert_eq!(set(), "8:0 enable=1 ctrl=auto\n");
        kernel.switch_on(&[device(8, 0), device(8, 1)]);
        assert_eq!(set(), "8:0 enable=1 ctrl=auto\n");
        kernel.switch_on(&[device(9, 0)]);
        assert_eq!(set().lines().count(), 2, "{}", set());
        assert!(set().contains("8:16 enable=1"), "{}", set());
    }

    #[test]
    fn what_the_operator_has_set_stays() {
        let base = tempfile::tempdir().unwrap();
        let kernel = machine(base.path());
        let set = "8:0 enable=0 ctrl=user rpct=95.00\n";
        fs::write(&kernel.qos, set).unwrap();
        kernel.switch_on(&[device(8, 1)]);
        assert_eq!(fs::read_to_string(&kernel.qos).unwrap(), set);
        // A kernel without it.
        fs::remove_file(&kernel.qos).unwrap();
        kernel.switch_on(&[device(8, 1)]);
        assert!(!kernel.qos.exists());
    }
}
