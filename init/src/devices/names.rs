//! The names of block devices below `/dev/disk`, as udev's rules make them (`60-persistent-storage.rules`):
//! configuration and fstab-like files written for other systems find their disks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::volume::Volume;

/// What is known about a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// Node below /dev: `vda2`.
    pub(super) node: String,
    /// Number of the partition, if it is one.
    pub(super) partition: Option<u32>,
    /// Name of the partition in the table.
    pub(super) part_label: Option<String>,
    /// GUID of the partition.
    pub(super) part_uuid: Option<String>,
    /// The file system on it.
    pub(super) volume: Option<Volume>,
    /// Names of the disk that stay the same in another slot: `nvme-QEMU_NVMe_Ctrl_1`.
    pub(super) ids: Vec<String>,
    /// Its place in the machine: `pci-0000:00:03.0`.
    pub(super) place: Option<String>,
}

/// The links for all devices: path below /dev, and the node. Of several devices with the same name
/// the first one has it; the order of the names decides, not that of their appearance.
pub(super) fn links(devices: &[Description]) -> BTreeMap<PathBuf, String> {
    let mut links = BTreeMap::new();
    let mut sorted: Vec<&Description> = devices.iter().collect();
    sorted.sort_by(|left, right| left.node.cmp(&right.node));
    for device in sorted {
        let part = match device.partition {
            Some(number) => format!("-part{number}"),
            None => String::new(),
        };
        let mut add = |directory: &str, name: String| {
            // Neither an empty name nor one that would lead out of the directory.
            if !name.is_empty() && !name.contains('/') && name != "." && name != ".." {
                let path = Path::new("disk").join(directory).join(name);
                links.entry(path).or_insert_with(|| device.node.clone());
            }
        };
        for id in &device.ids {
            add("by-id", format!("{id}{part}"));
        }
        if let Some(place) = &device.place {
            add("by-path", format!("{place}{part}"));
        }
        if let Some(label) = &device.part_label {
            add("by-partlabel", encoded(label.as_bytes()));
        }
        if let Some(guid) = &device.part_uuid {
            add("by-partuuid", guid.clone());
        }
        if let Some(volume) = &device.volume {
            add("by-label", encoded(&volume.label));
            add("by-uuid", encoded(volume.uuid.as_bytes()));
        }
    }
    links
}

/// The nodes of the devices that `name` means: by `LABEL=` and so on, by a link below /dev/disk, or by
/// themselves.
pub(super) fn meant(devices: &[Description], name: &str) -> Vec<String> {
    if let Some(path) = name.strip_prefix("/dev/") {
        let link = links(devices).remove(Path::new(path));
        let own = devices.iter().find(|device| device.node == path);
        return link
            .or(own.map(|own| own.node.clone()))
            .into_iter()
            .collect();
    }
    let Some((tag, value)) = name.split_once('=') else {
        return Vec::new();
    };
    let is_meant = |device: &&Description| {
        let volume = device.volume.as_ref();
        let own = match tag {
            "LABEL" => return volume.is_some_and(|v| v.label == value.as_bytes()),
            "UUID" => volume.map(|volume| &volume.uuid),
            "PARTUUID" => device.part_uuid.as_ref(),
            "PARTLABEL" => return device.part_label.as_deref() == Some(value),
            _ => None,
        };
        own.is_some_and(|own| own.eq_ignore_ascii_case(value))
    };
    let nodes = devices.iter().filter(is_meant);
    nodes.map(|device| device.node.clone()).collect()
}

/// A label as libblkid encodes it: what is neither plain nor a letter of UTF-8 becomes `\x20`.
fn encoded(label: &[u8]) -> String {
    let mut name = String::new();
    for chunk in label.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_plain(character) || !character.is_ascii() && !character.is_control() {
                name.push(character);
            } else {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    name.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
        for byte in chunk.invalid() {
            name.push_str(&format!("\\x{byte:02x}"));
        }
    }
    name
}

/// A part of an identifier: blanks become one underscore, what is not plain becomes one, too.
pub(super) fn part(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |character| if is_plain(character) { character } else { '_' };
    words.join("_").chars().map(plain).collect()
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "#+-.:=@_".contains(character)
}

/// The place of a disk from its path in sysfs, which names its adapter, bus and address:
/// `/sys/devices/pci0000:00/0000:00:03.0/virtio1/block/vda`. `None` for disks that are in no
/// slot (loop, RAM, RAID).
pub(super) fn place(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let slot = |text: &&&str| {
        let bytes = text.as_bytes();
        // Domain, bus, device, function: 0000:00:03.0.
        bytes.len() >= 12
            && text.matches(':').count() == 2
            && bytes.get(bytes.len() - 2) == Some(&b'.')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
    };
    let pci = parts.iter().rposition(|text| slot(&text));
    let mut place = match pci {
        Some(at) => format!("pci-{}", parts.get(at)?),
        None => return None,
    };
    let behind = parts.get(pci? + 1..)?;
    // A port of USB: 1-2.3:1.0, below the adapter's root hub (usb1).
    let usb = behind.iter().rev().find(|text| {
        text.split_once('-').is_some_and(|(bus, port)| {
            bus.bytes().all(|byte| byte.is_ascii_digit()) && port.contains(':')
        })
    });
    if let Some((_, port)) = usb.and_then(|text| text.split_once('-')) {
        place += &format!("-usb-0:{port}");
    }
    let number = |prefix: &str| {
        behind
            .iter()
            .find_map(|text| text.strip_prefix(prefix)?.parse::<u32>().ok())
    };
    let target = behind.iter().rev().find(|text| {
        text.split(':').count() == 4
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b':')
    });
    if let Some(ata) = number("ata") {
        place += &format!("-ata-{ata}");
    } else if let Some(target) = target {
        // The number of the host depends on the order of the drivers; its place says enough.
        let (_, address) = target.split_once(':')?;
        place += &format!("-scsi-0:{address}");
    } else if let Some(space) = behind.last().and_then(|name| namespace(name)) {
        place += &format!("-nvme-{space}");
    }
    Some(place)
}

/// The namespace of an NVMe disk or of its path: 1 for `nvme0n1` and `nvme0c0n1`.
fn namespace(name: &str) -> Option<u32> {
    name.strip_prefix("nvme")?.rsplit_once('n')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_meant_as_in_mount() {
        let volume = |label: &str, uuid: &str| Volume {
            kind: "ext4",
            label: label.as_bytes().to_vec(),
            uuid: uuid.to_owned(),
        };
        let device = |node: &str, label: &str| Description {
            node: node.to_owned(),
            volume: Some(volume(label, "ab-01")),
            part_label: Some("data".to_owned()),
            part_uuid: Some(format!("guid-{node}")),
            ids: vec![format!("virtio-{node}")],
            ..Description::default()
        };
        let devices = [device("vdb", "my data"), device("vdc", "other")];
        let of = |name: &str| meant(&devices, name);
        assert_eq!(of("LABEL=my data"), ["vdb"]);
        assert_eq!(of("UUID=AB-01"), ["vdb", "vdc"]);
        assert_eq!(of("PARTLABEL=data"), ["vdb", "vdc"]);
        assert_eq!(of("PARTUUID=GUID-vdc"), ["vdc"]);
        assert_eq!(of("/dev/disk/by-id/virtio-vdc"), ["vdc"]);
        assert_eq!(of("/dev/disk/by-label/my\\x20data"), ["vdb"]);
        assert_eq!(of("/dev/vdb"), ["vdb"]);
        for nothing in ["LABEL=", "/dev/vdd", "vdb", "NAME=vdb"] {
            assert!(of(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn places_are_udevs() {
        let of = |path: &str| place(&format!("/sys/devices/{path}"));
        for (path, expected) in [
            (
                "pci0000:00/0000:00:03.0/virtio1/block/vda",
                "pci-0000:00:03.0",
            ),
            (
                "pci0000:00/0000:00:04.0/virtio2/host7/target7:0:1/7:0:1:2/block/sdb",
                "pci-0000:00:04.0-scsi-0:0:1:2",
            ),
            (
                "pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sda",
                "pci-0000:00:1f.2-ata-2",
            ),
            (
                "pci0000:00/0000:00:1c.0/0000:01:00.0/nvme/nvme0/nvme0n1",
                "pci-0000:01:00.0-nvme-1",
            ),
            (
                "pci0000:00/0000:00:05.0/usb2/2-1/2-1.4/2-1.4:1.0/host8/target8:0:0/8:0:0:0/block/sdc",
                "pci-0000:00:05.0-usb-0:1.4:1.0-scsi-0:0:0:0",
            ),
        ] {
            assert_eq!(of(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(of("virtual/block/loop0"), None);
    }

    fn described(node: &str, label: &str) -> Description {
        Description {
            node: node.to_owned(),
            partition: Some(1),
            part_label: Some(label.to_owned()),
            volume: Some(Volume {
                kind: "ext4",
                label: b"my disk/\xff".to_vec(),
                uuid: "12AB-34CD".to_owned(),
            }),
            ids: vec!["virtio-abc".to_owned()],
            ..Description::default()
        }
    }

    #[test]
    fn names_are_encoded_and_the_first_device_has_them() {
        let links = links(&[described("vdb1", "data"), described("vda1", "data")]);
        let to = |path: &str| links.get(Path::new(path)).map(String::as_str);
        assert_eq!(to("disk/by-partlabel/data"), Some("vda1"));
        assert_eq!(to("disk/by-id/virtio-abc-part1"), Some("vda1"));
        assert_eq!(to("disk/by-label/my\\x20disk\\x2f\\xff"), Some("vda1"));
        assert_eq!(to("disk/by-uuid/12AB-34CD"), Some("vda1"));
        assert_eq!(links.len(), 4);
    }

    #[test]
    fn no_name_leads_out_of_its_directory() {
        let mut device = described("vda1", "..");
        device.ids = vec!["../../sda".to_owned(), String::new()];
        device.partition = None;
        for path in links(&[device]).keys() {
            assert_eq!(path.components().count(), 3, "{path:?}");
        }
    }

    #[test]
    fn parts_of_identifiers_have_no_blanks() {
        assert_eq!(part("  QEMU  HARD/DISK "), "QEMU_HARD_DISK");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted(path: String, label: Vec<u8>) {
            place(&path);
            let name = encoded(&label);
            proptest::prop_assert!(!name.contains('/') && !name.contains('\0'));
        }
    }
}
