//! Nodes and names in /dev: groups and modes, and the links below `/dev/disk`.
//!
//! The work is done by a process of its own, because reading from a device may take any time. Each
//! run looks at all devices and makes /dev as it should be, whatever it was before.

mod names;
mod nodes;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use self::names::{Description, part};
use crate::disk::{grow, volume};
use crate::files::{entries, first_line};

/// First argument that brings /dev up to date.
pub(crate) const HELPER_DEVICES: &str = "devices";

/// The directories below /dev/disk.
const DIRECTORIES: [&str; 6] = [
    "by-id",
    "by-label",
    "by-partlabel",
    "by-partuuid",
    "by-path",
    "by-uuid",
];
/// Disks whose content comes and goes with containers and images: nobody names them this way.
const NAMELESS: [&str; 4] = ["loop", "ram", "zram", "nbd"];

/// Brings /dev up to date. Returns the number of failures; each is printed.
pub(crate) fn update() -> usize {
    let (sys, dev) = (Path::new("/sys"), Path::new("/dev"));
    let mut problems = set_access(sys, dev);
    problems.extend(set_links(dev, &names::links(&describe(sys, dev))));
    for problem in &problems {
        crate::console::warning(&format!("devices: {problem}"));
    }
    problems.len()
}

/// The nodes of the block devices that `name` means: `LABEL=`, `UUID=`, `PARTLABEL=`, `PARTUUID=` or a
/// path below /dev. Several are copies of each other. Parts of RAIDs and logical volumes don't count.
pub(crate) fn find(name: &str) -> Vec<PathBuf> {
    let (sys, dev) = (Path::new("/sys"), Path::new("/dev"));
    let mut devices = describe(sys, dev);
    devices.retain(|device| {
        let name = device.node.replace('/', "!");
        entries(&sys.join("class/block").join(name).join("holders")).is_empty()
    });
    let nodes = names::meant(&devices, name).into_iter();
    let nodes: Vec<PathBuf> = nodes.map(|node| dev.join(node)).collect();
    // For example that of a logical volume.
    let other = Path::new(name);
    match nodes.is_empty() && other.starts_with(dev) && other.exists() {
        true => vec![other.to_owned()],
        false => nodes,
    }
}

/// Gives nodes their groups and modes.
fn set_access(sys: &Path, dev: &Path) -> Vec<String> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut problems = Vec::new();
    for kind in ["char", "block"] {
        for device in entries(&sys.join("dev").join(kind)) {
            let uevent = fs::read_to_string(device.join("uevent")).unwrap_or_default();
            let Some(node) = value(&uevent, "DEVNAME") else {
                continue;
            };
            let Some((group, mode)) = nodes::access(node, kind == "block") else {
                continue;
            };
            let made = value(&uevent, "DEVMODE")
                .and_then(|mode| u32::from_str_radix(mode, 8).ok())
                .unwrap_or(0o600);
            let group = keelson_linux::accounts::id(&groups, group);
            if let Err(error) = open_up(&dev.join(node), made, group, mode) {
                problems.push(format!("/dev/{node}: {error}"));
            }
        }
    }
    problems
}

/// Changes a node as the kernel has made it, with mode `made`. One that somebody has changed is left
/// alone, and so is one whose group this system does not have, unless everybody may use it.
fn open_up(node: &Path, made: u32, group: Option<u32>, mode: u32) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(node) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let untouched = metadata.uid() == 0
        && metadata.gid() == 0
        && metadata.permissions().mode() & 0o7777 == made
        && !metadata.file_type().is_symlink();
    if !untouched {
        return Ok(());
    }
    match group {
        Some(group) => chown(node, None, Some(group))?,
        None if mode & 0o006 == 0o006 => {}
        None => return Ok(()),
    }
    fs::set_permissions(node, fs::Permissions::from_mode(mode))
}

/// What is known about all block devices with names.
fn describe(sys: &Path, dev: &Path) -> Vec<Description> {
    let mut guids = BTreeMap::new();
    entries(&sys.join("class/block"))
        .into_iter()
        .filter_map(|link| {
            let name = link.file_name()?.to_str()?.to_owned();
            let nameless = NAMELESS.iter().any(|prefix| name.starts_with(prefix));
            let uevent = fs::read_to_string(link.join("uevent")).ok()?;
            let node = value(&uevent, "DEVNAME")?.to_owned();
            let empty = first_line(link.join("size")).is_none_or(|size| size == "0");
            if nameless || empty || !dev.join(&node).exists() {
                return None;
            }
            let own = link.canonicalize().ok()?;
            let partition = value(&uevent, "PARTN").and_then(|number| number.parse().ok());
            let disk = match partition {
                Some(_) => own.parent()?.to_owned(),
                None => own,
            };
            let disk_name = disk.file_name()?.to_str()?.to_owned();
            let table = guids.entry(disk_name.clone()).or_insert_with(|| {
                grow::partition_guids(sys, &dev.join(&disk_name)).unwrap_or_default()
            });
            let guid = table.iter().find(|(number, _)| Some(*number) == partition);
            Some(Description {
                volume: volume::of_device(&dev.join(&node)),
                node,
                partition,
                part_label: value(&uevent, "PARTNAME").map(str::to_owned),
                part_uuid: guid.map(|(_, guid)| guid.clone()),
                ids: identifiers(&disk),
                place: names::place(disk.to_str()?),
            })
        })
        .collect()
}

/// The identifiers of a disk with this directory in sysfs.
pub(crate) fn identifiers(disk: &Path) -> Vec<String> {
    let read = |name: &str| first_line(disk.join(name)).filter(|text| !text.is_empty());
    let mut ids = Vec::new();
    let name = disk
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if name.starts_with("nvme") {
        if let (Some(model), Some(serial)) = (read("device/model"), read("device/serial")) {
            ids.push(format!("nvme-{}_{}", part(&model), part(&serial)));
        }
        ids.extend(read("wwid").map(|wwid| format!("nvme-{}", part(&wwid))));
    } else if let Some(serial) = read("serial") {
        ids.push(format!("virtio-{}", part(&serial)));
    }
    if name.starts_with("dm-") {
        ids.extend(read("dm/name").map(|name| format!("dm-name-{}", part(&name))));
        ids.extend(read("dm/uuid").map(|uuid| format!("dm-uuid-{}", part(&uuid))));
    }
    // World-wide names, and the words of disks that have none (scsi_id's page 0x83).
    if let Some(wwid) = read("device/wwid") {
        match wwid.split_once('.') {
            Some(("naa" | "eui", number)) => ids.push(format!("wwn-0x{}", part(number))),
            Some(("t10", words)) => match words.split_once("ATA ") {
                Some(("", words)) => ids.push(format!("ata-{}", part(words))),
                _ => ids.push(format!("scsi-1{}", part(words))),
            },
            _ => {}
        }
    }
    ids.extend(usb_identifier(disk));
    ids
}

/// `usb-MAKER_PRODUCT_SERIAL-0:0`, from the USB device that the disk is a part of.
fn usb_identifier(disk: &Path) -> Option<String> {
    let device = disk
        .ancestors()
        .find(|path| path.join("idVendor").exists())?;
    let words: Vec<String> = ["manufacturer", "product", "serial"]
        .into_iter()
        .filter_map(|name| first_line(device.join(name)))
        .map(|text| part(&text))
        .collect();
    (!words.is_empty()).then(|| format!("usb-{}-0:0", words.join("_")))
}

/// Makes the links below `dev` as wanted: missing and wrong ones are made in one step, so that no
/// reader finds none, and others are removed.
fn set_links(dev: &Path, wanted: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut problems = Vec::new();
    for directory in DIRECTORIES {
        let directory = Path::new("disk").join(directory);
        if let Err(error) = fs::create_dir_all(dev.join(&directory)) {
            problems.push(format!("create {}: {error}", directory.display()));
            continue;
        }
        for present in entries(&dev.join(&directory)) {
            let known = present
                .strip_prefix(dev)
                .is_ok_and(|path| wanted.contains_key(path));
            if !known {
                // Gone already, or tried again in the next run.
                let _ = fs::remove_file(present);
            }
        }
    }
    for (path, node) in wanted {
        let link = dev.join(path);
        let target = Path::new("../..").join(node);
        if fs::read_link(&link).is_ok_and(|present| present == target) {
            continue;
        }
        let temporary = dev.join("disk/.new");
        let _ = fs::remove_file(&temporary);
        let made = symlink(&target, &temporary).and_then(|()| fs::rename(&temporary, &link));
        if let Err(error) = made {
            problems.push(format!("symlink {}: {error}", link.display()));
        }
    }
    problems
}

/// The value of `KEY=VALUE` in a uevent file.
fn value<'a>(uevent: &'a str, key: &str) -> Option<&'a str> {
    uevent
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(links: &[(&str, &str)]) -> BTreeMap<PathBuf, String> {
        let pair = |(path, node): &(&str, &str)| (PathBuf::from(path), (*node).to_owned());
        links.iter().map(pair).collect()
    }

    #[test]
    fn links_follow_the_devices() {
        let dev = tempfile::tempdir().unwrap();
        let read = |path: &str| fs::read_link(dev.path().join(path)).ok();
        let first = wanted(&[("disk/by-id/a", "vda"), ("disk/by-label/x", "vda1")]);
        assert!(set_links(dev.path(), &first).is_empty());
        assert_eq!(read("disk/by-id/a"), Some("../../vda".into()));
        let second = wanted(&[("disk/by-id/a", "vdb"), ("disk/by-uuid/y", "vdb1")]);
        assert!(set_links(dev.path(), &second).is_empty());
        assert_eq!(read("disk/by-id/a"), Some("../../vdb".into()));
        assert_eq!(read("disk/by-label/x"), None);
        assert_eq!(read("disk/by-uuid/y"), Some("../../vdb1".into()));
        assert_eq!(fs::read_dir(dev.path().join("disk")).unwrap().count(), 6);
    }

    #[test]
    fn disks_are_known_by_what_sysfs_says() {
        let sys = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("vda/serial", "data-1\n");
        write(
            "nvme0n1/device/model",
            "QEMU NVMe Ctrl                          \n",
        );
        write("nvme0n1/device/serial", "abc\n");
        write("nvme0n1/wwid", "nvme.1b36-616263\n");
        write("sda/device/wwid", "naa.5000c50015ea71ac\n");
        write(
            "sdb/device/wwid",
            "t10.ATA     QEMU HARDDISK    QM00001   \n",
        );
        write("usb1/idVendor", "46f4\n");
        write("usb1/product", "QEMU USB HARDDRIVE\n");
        write("usb1/host/sdc/size", "1\n");
        let of = |disk: &str| identifiers(&sys.path().join(disk));
        assert_eq!(of("vda"), ["virtio-data-1"]);
        assert_eq!(
            of("nvme0n1"),
            ["nvme-QEMU_NVMe_Ctrl_abc", "nvme-nvme.1b36-616263"]
        );
        assert_eq!(of("sda"), ["wwn-0x5000c50015ea71ac"]);
        assert_eq!(of("sdb"), ["ata-QEMU_HARDDISK_QM00001"]);
        assert_eq!(of("usb1/host/sdc"), ["usb-QEMU_USB_HARDDRIVE-0:0"]);
    }

    #[test]
    fn a_changed_node_is_left_alone() {
        let dev = tempfile::tempdir().unwrap();
        let node = dev.path().join("kvm");
        fs::write(&node, "").unwrap();
        fs::set_permissions(&node, fs::Permissions::from_mode(0o640)).unwrap();
        open_up(&node, 0o600, None, 0o666).unwrap();
        let mode = || fs::metadata(&node).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o640);
        open_up(&dev.path().join("gone"), 0o600, None, 0o666).unwrap();
        if keelson_testing::is_root() {
            open_up(&node, 0o640, None, 0o660).unwrap();
            assert_eq!(mode(), 0o640, "without its group");
            open_up(&node, 0o640, None, 0o666).unwrap();
            assert_eq!(mode(), 0o666);
        }
    }
}
