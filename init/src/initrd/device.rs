//! Finds the root device.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cmdline::CommandLine;
use crate::disk::grow;
use crate::modules::{Loader, ModuleError, aliases_of_devices};
use crate::uevent::{Received, UeventSocket};

/// The forms in which the kernel command line names the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootSpec {
    /// `PARTLABEL=`: name of a GPT partition.
    PartLabel(String),
    /// `PARTUUID=`: unique GUID of a GPT partition, lower case.
    PartUuid(String),
    /// `LABEL=`: volume name of an ext4 file system.
    Label(String),
    /// `UUID=`: UUID of an ext4 file system, lower case.
    Uuid(String),
    /// `/dev/NAME`.
    Device(String),
}

impl RootSpec {
    /// Reads the value of `root=`. `None` when it has none of the known forms.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = |prefix: &str| {
            text.strip_prefix(prefix)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        if let Some(label) = value("PARTLABEL=") {
            return Some(Self::PartLabel(label));
        }
        if let Some(uuid) = value("PARTUUID=") {
            return Some(Self::PartUuid(uuid.to_ascii_lowercase()));
        }
        if let Some(label) = value("LABEL=") {
            return Some(Self::Label(label));
        }
        if let Some(uuid) = value("UUID=") {
            return Some(Self::Uuid(uuid.to_ascii_lowercase()));
        }
        let name = value("/dev/")?;
        // Nodes in directories (mapper/, disk/) have no such name in sysfs.
        (!name.contains('/') && name != "." && name != "..").then_some(Self::Device(name))
    }
}

/// The `uevent` file of a block device in sysfs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct BlockUevent {
    part_name: Option<String>,
    part_uuid: Option<String>,
    number: Option<u32>,
}

impl BlockUevent {
    fn parse(text: &str) -> Self {
        let mut uevent = Self::default();
        for line in text.lines() {
            match line.split_once('=') {
                Some(("PARTNAME", value)) => uevent.part_name = Some(value.to_owned()),
                Some(("PARTUUID", value)) => uevent.part_uuid = Some(value.to_ascii_lowercase()),
                Some(("PARTN", value)) => uevent.number = value.parse().ok(),
                _ => {}
            }
        }
        uevent
    }
}

/// Why there is no root device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// It did not appear in time.
    #[error("no root device {spec} within {seconds} s; block devices present: {present}")]
    Missing {
        spec: String,
        seconds: u64,
        present: String,
    },
    /// The event socket broke.
    #[error("wait for device events: {0}")]
    Events(#[source] std::io::Error),
}

/// The drivers in the initrd. They are loaded only if the modules that the initrd always loads did
/// not bring up the root device: each driver costs time, and stage 2 has them all.
pub(crate) struct Drivers {
    command_line: CommandLine,
    loader: Option<Loader>,
}

impl Drivers {
    /// Nothing is loaded yet.
    pub(crate) fn new(command_line: &CommandLine) -> Self {
        Self {
            command_line: command_line.clone(),
            loader: None,
        }
    }

    /// Loads the drivers of the devices present, once.
    fn load_for_present(&mut self) -> bool {
        if self.loader.is_some() {
            return false;
        }
        let mut loader = Loader::open(self.command_line.clone());
        for alias in aliases_of_devices(Path::new("/sys")) {
            report(&loader.load_for_device(&alias));
        }
        self.loader = Some(loader);
        true
    }

    /// Loads the drivers of a device that appeared.
    fn load_for(&mut self, modalias: &str) {
        if let Some(loader) = &mut self.loader {
            report(&loader.load_for_device(modalias));
        }
    }
}

fn report(errors: &[ModuleError]) {
    for error in errors {
        crate::console::warning(&error.to_string());
    }
}

/// Waits until the device exists, and returns its kernel name (`vda2`). Loads drivers from the
/// initrd if they are needed for that.
pub(crate) fn wait_for(
    spec: &RootSpec,
    spec_text: &str,
    events: &UeventSocket,
    drivers: &mut Drivers,
    limit: Duration,
) -> Result<String, DeviceError> {
    let deadline = Instant::now() + limit;
    loop {
        // The socket was opened before this check, so no event is missed.
        if let Some(name) = find(spec) {
            return Ok(name);
        }
        if drivers.load_for_present() {
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(DeviceError::Missing {
                spec: spec_text.to_owned(),
                seconds: limit.as_secs(),
                present: describe_block_devices(),
            });
        }
        let mut descriptors = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(DeviceError::Events(error.into())),
        }
        loop {
            match events.receive().map_err(DeviceError::Events)? {
                Received::Event(event) => {
                    if let (true, Some(modalias)) = (event.action == "add", &event.modalias) {
                        drivers.load_for(modalias);
                    }
                }
                Received::Lost => {}
                Received::Nothing => break,
            }
        }
    }
}

fn find(spec: &RootSpec) -> Option<String> {
    block_devices().into_iter().find(|name| {
        let node = Path::new("/dev").join(name);
        if !node.exists() {
            return false;
        }
        match spec {
            RootSpec::Device(wanted) => name == wanted,
            RootSpec::PartLabel(label) => uevent_of(name).part_name.as_ref() == Some(label),
            RootSpec::PartUuid(uuid) => has_part_uuid(name, uuid),
            RootSpec::Label(label) => {
                superblock(&node).is_some_and(|found| found.label == label.as_bytes())
            }
            RootSpec::Uuid(uuid) => superblock(&node).is_some_and(|found| found.uuid == *uuid),
        }
    })
}

fn superblock(node: &Path) -> Option<crate::disk::ext4::Superblock> {
    // A device that can't be read is not the root device.
    grow::superblock(node).ok().flatten()
}

fn uevent_of(name: &str) -> BlockUevent {
    let path = Path::new("/sys/class/block").join(name).join("uevent");
    BlockUevent::parse(&fs::read_to_string(path).unwrap_or_default())
}

/// Kernels before 6.14 don't put PARTUUID into the uevent; then it is in the table itself.
fn has_part_uuid(name: &str, uuid: &str) -> bool {
    let uevent = uevent_of(name);
    if let Some(found) = &uevent.part_uuid {
        return found == uuid;
    }
    let (Some(number), Ok(directory)) = (
        uevent.number,
        Path::new("/sys/class/block").join(name).canonicalize(),
    ) else {
        return false;
    };
    let Some(disk) = directory.parent().and_then(Path::file_name) else {
        return false;
    };
    let path = Path::new("/dev").join(disk);
    let Ok(device) = fs::File::open(&path) else {
        return false;
    };
    [512, 4096].iter().any(|sector| {
        grow::read_table(&device, &path, *sector)
            .ok()
            .and_then(|(header, entries)| header.partitions(&entries).ok())
            .is_some_and(|partitions| {
                partitions
                    .iter()
                    .any(|partition| partition.number == number && partition.guid == uuid)
            })
    })
}

fn block_devices() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// The devices with the values of `root=` that would match them, for the error message.
fn describe_block_devices() -> String {
    let devices: Vec<String> = block_devices()
        .into_iter()
        .map(|name| match uevent_of(&name).part_name {
            Some(label) => format!("{name} (PARTLABEL={label})"),
            None => name,
        })
        .collect();
    if devices.is_empty() {
        "none".to_owned()
    } else {
        devices.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_root() {
        assert_eq!(
            RootSpec::parse("PARTLABEL=root"),
            Some(RootSpec::PartLabel("root".into()))
        );
        assert_eq!(
            RootSpec::parse("PARTUUID=AB-C"),
            Some(RootSpec::PartUuid("ab-c".into()))
        );
        assert_eq!(
            RootSpec::parse("/dev/vda2"),
            Some(RootSpec::Device("vda2".into()))
        );
        for wrong in [
            "",
            "LABEL=",
            "/dev/",
            "/dev/..",
            "/dev/mapper/x",
            "vda2",
            "ZFS=x",
        ] {
            assert_eq!(RootSpec::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn uevent_of_a_partition() {
        let uevent = BlockUevent::parse("MAJOR=254\nDEVTYPE=partition\nPARTN=2\nPARTNAME=root\n");
        assert_eq!(uevent.part_name.as_deref(), Some("root"));
        assert_eq!(uevent.number, Some(2));
        assert_eq!(uevent.part_uuid, None);
    }
}
