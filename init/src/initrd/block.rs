//! The block devices present, as sysfs shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::root::{BootDisk, Candidate, RootSpec};
use crate::disk::mend::{self, Finding};
use crate::disk::{grow, volume};

const CLASS: &str = "/sys/class/block";

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

    fn of(name: &str) -> Self {
        let path = Path::new(CLASS).join(name).join("uevent");
        Self::parse(&fs::read_to_string(path).unwrap_or_default())
    }
}

/// A block device: a disk or a partition.
#[derive(Debug, Clone)]
pub(super) struct Block {
    name: String,
    /// Kernel name of its disk; its own name if it is one.
    disk: String,
    uevent: BlockUevent,
    /// A part of something else: of a RAID, of a logical volume.
    held: bool,
}

/// All block devices with a node, sorted by name.
pub(super) fn devices() -> Vec<Block> {
    let mut blocks: Vec<Block> = fs::read_dir(CLASS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Path::new("/dev").join(name).exists())
        .map(|name| {
            let directory = Path::new(CLASS).join(&name);
            let holders = fs::read_dir(directory.join("holders"));
            Block {
                disk: disk_of(&directory).unwrap_or_else(|| name.clone()),
                uevent: BlockUevent::of(&name),
                held: holders.is_ok_and(|mut holders| holders.next().is_some()),
                name,
            }
        })
        .collect();
    blocks.sort_by(|left, right| left.name.cmp(&right.name));
    blocks
}

/// The disk of a partition.
fn disk_of(directory: &Path) -> Option<String> {
    directory.join("partition").exists().then_some(())?;
    let resolved = directory.canonicalize().ok()?;
    Some(resolved.parent()?.file_name()?.to_str()?.to_owned())
}

/// GUIDs of partitions by disk and number. Kernels before 6.14 don't put them into the uevent;
/// then they are read from the tables, once.
#[derive(Debug, Default)]
pub(super) struct Tables(BTreeMap<String, Vec<(u32, String)>>);

impl Tables {
    fn has_guid(&mut self, block: &Block, guid: &str) -> bool {
        if let Some(found) = &block.uevent.part_uuid {
            return found == guid;
        }
        let Some(number) = block.uevent.number else {
            return false;
        };
        let table = self.0.entry(block.disk.clone());
        let known = table.or_insert_with(|| {
            let node = Path::new("/dev").join(&block.disk);
            grow::partition_guids(Path::new("/sys"), &node).unwrap_or_default()
        });
        known
            .iter()
            .any(|(at, found)| *at == number && found == guid)
    }
}

/// The devices that have what `spec` names.
pub(super) fn matching(spec: &RootSpec, blocks: &[Block], tables: &mut Tables) -> Vec<Candidate> {
    let matches = |block: &&Block| {
        if let RootSpec::Device(wanted) = spec {
            return block.name == *wanted;
        }
        if block.held {
            return false;
        }
        match spec {
            RootSpec::Device(_) => false,
            RootSpec::PartLabel(label) => block.uevent.part_name.as_ref() == Some(label),
            RootSpec::PartUuid(guid) => tables.has_guid(block, guid),
            RootSpec::Label(label) => {
                volume(block).is_some_and(|found| found.label == label.as_bytes())
            }
            RootSpec::Uuid(uuid) => {
                volume(block).is_some_and(|found| found.uuid.eq_ignore_ascii_case(uuid))
            }
        }
    };
    let candidate = |block: &Block| Candidate {
        name: block.name.clone(),
        disk: block.disk.clone(),
    };
    blocks.iter().filter(matches).map(candidate).collect()
}

fn volume(block: &Block) -> Option<volume::Volume> {
    volume::of_device(&Path::new("/dev").join(&block.name))
}

/// The disks with the partition `guid`, which the boot loader was started from.
pub(super) fn boot_disk(guid: Option<&str>, blocks: &[Block], tables: &mut Tables) -> BootDisk {
    let Some(guid) = guid else {
        return BootDisk::Unknown;
    };
    let disks: BTreeSet<String> = blocks
        .iter()
        .filter(|block| tables.has_guid(block, guid))
        .map(|block| block.disk.clone())
        .collect();
    match disks.is_empty() {
        true => BootDisk::Absent,
        false => BootDisk::Present(disks),
    }
}

/// The disks without partitions that were examined, each with what the operator should know.
#[derive(Debug, Default)]
pub(super) struct Examined(BTreeMap<String, Option<String>>);

impl Examined {
    /// Examines disks on which the kernel has found no partitions, each once, and restores their
    /// partition tables. Returns whether there are new partitions.
    pub(super) fn examine(&mut self, blocks: &[Block]) -> bool {
        let mut changed = false;
        for block in blocks {
            let has_partitions = blocks
                .iter()
                .any(|b| b.disk == block.name && b.name != b.disk);
            if block.disk != block.name || has_partitions || self.0.contains_key(&block.name) {
                continue;
            }
            let Some((sectors, sector)) = grow::geometry(&Path::new(CLASS).join(&block.name))
            else {
                continue;
            };
            let path = Path::new("/dev").join(&block.name);
            let remark = match mend::mend(&path, sectors, sector) {
                Ok(Finding::Mended) => {
                    crate::console::warning(&format!(
                        "the partition table of {} was damaged and is restored from its copy",
                        block.name
                    ));
                    changed = true;
                    reread(&path)
                        .err()
                        .map(|error| format!("read its partition table again: {error}"))
                }
                Ok(Finding::OtherSectors(other)) => Some(format!(
                    "its partition table is for sectors of {other} bytes, but it has sectors of \
                     {sector}: an image for such disks must be written to it"
                )),
                Ok(Finding::Nothing) => None,
                // No medium, or a device that can't be read: for its driver to report.
                Err(_) => None,
            };
            self.0.insert(block.name.clone(), remark);
        }
        changed
    }

    /// The devices with the values of `root=` that would match them, for the error message.
    pub(super) fn describe(&self, blocks: &[Block]) -> String {
        let describe = |block: &Block| {
            let remark = self.0.get(&block.name).cloned().flatten();
            let label = block.uevent.part_name.as_ref();
            match label.map(|label| format!("PARTLABEL={label}")).or(remark) {
                Some(more) => format!("{} ({more})", block.name),
                None => block.name.clone(),
            }
        };
        match blocks {
            [] => "none".to_owned(),
            _ => Vec::from_iter(blocks.iter().map(describe)).join(", "),
        }
    }
}

fn reread(path: &Path) -> std::io::Result<()> {
    let disk = fs::File::open(path)?;
    Ok(keelson_sys::blkpg::reread_partitions(&disk)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uevent_of_a_partition() {
        let uevent = BlockUevent::parse("MAJOR=254\nDEVTYPE=partition\nPARTN=2\nPARTNAME=root\n");
        assert_eq!(uevent.part_name.as_deref(), Some("root"));
        assert_eq!(uevent.number, Some(2));
        assert_eq!(uevent.part_uuid, None);
    }

    fn block(name: &str, disk: &str, guid: &str, held: bool) -> Block {
        Block {
            name: name.to_owned(),
            disk: disk.to_owned(),
            uevent: BlockUevent {
                part_name: Some("root".to_owned()),
                part_uuid: Some(guid.to_owned()),
                number: Some(1),
            },
            held,
        }
    }

    #[test]
    fn parts_of_other_devices_do_not_match() {
        let blocks = [
            block("sda1", "sda", "a", true),
            block("sdb1", "sdb", "b", false),
        ];
        let mut tables = Tables::default();
        let label = RootSpec::PartLabel("root".to_owned());
        let found = matching(&label, &blocks, &mut tables);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].disk, "sdb");
        // Unless exactly this one is asked for.
        let node = RootSpec::Device("sda1".to_owned());
        assert_eq!(matching(&node, &blocks, &mut tables)[0].name, "sda1");
    }

    #[test]
    fn the_boot_disk_has_the_boot_loaders_partition() {
        let blocks = [
            block("sda1", "sda", "a", false),
            block("sdb1", "sdb", "b", false),
        ];
        let mut tables = Tables::default();
        assert_eq!(boot_disk(None, &blocks, &mut tables), BootDisk::Unknown);
        assert_eq!(boot_disk(Some("c"), &blocks, &mut tables), BootDisk::Absent);
        let sdb = BootDisk::Present(BTreeSet::from(["sdb".to_owned()]));
        assert_eq!(boot_disk(Some("b"), &blocks, &mut tables), sdb);
    }
}
