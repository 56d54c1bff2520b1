//! Enlarges the root partition and its file system on a disk that is larger than the image.
//!
//! It happens in stage 1, because nothing else uses the disk yet and everything later sees the
//! final size. Every boot checks it; that costs two small reads if there is nothing to do. A power
//! failure may interrupt each step: the copy of the table at the new end is written before the main
//! table, the main table is one write, and ext4 journals its growth.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{ext4, gpt};

/// The partition table is not changed for less space than this, in bytes.
const LEAST: u64 = 8 << 20;

/// Why the partition did not grow. The machine works with the unchanged disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowError {
    /// A file of sysfs or a device can't be read or written.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The partition table.
    #[error("{}: {source}", path.display())]
    Table {
        path: PathBuf,
        source: gpt::GptError,
    },
}

/// Enlarges the partition that has the kernel name `partition` (`vda2`) if it is the last one on
/// its disk and there is room after it. Returns its new size in bytes, or `None` if it is
/// unchanged.
pub(crate) fn grow_partition(sys: &Path, partition: &str) -> Result<Option<u64>, GrowError> {
    let directory = sys.join("class/block").join(partition);
    let Some(number) = number_in(&directory.join("partition")) else {
        // The file system is on the whole disk.
        return Ok(None);
    };
    let resolved = directory
        .canonicalize()
        .map_err(io_error("resolve", &directory))?;
    let Some(disk) = resolved.parent() else {
        return Ok(None);
    };
    let (Some(name), Ok(number)) = (disk.file_name(), u32::try_from(number)) else {
        return Ok(None);
    };
    let Some((sectors, sector)) = geometry(disk) else {
        return Ok(None);
    };
    let path = Path::new("/dev").join(name);
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let (header, entries) = read_table(&device, &path, sector)?;
    let table = |source| GrowError::Table {
        path: path.clone(),
        source,
    };
    let plan = gpt::plan_growth(&header, &entries, number, sectors, sector, LEAST / sector)
        .map_err(table)?;
    let Some(growth) = plan else {
        return Ok(None);
    };
    write_table(&device, &growth, header.entries_at, sector).map_err(io_error("write", &path))?;
    let length = (growth.last - growth.first + 1) * sector;
    keelson_sys::blkpg::resize_partition(&device, number, growth.first * sector, length)
        .map_err(|error| io_error("BLKPG on", &path)(error.into()))?;
    Ok(Some(length))
}

/// The number of sectors and the bytes in a sector of the disk with this directory in sysfs.
pub(crate) fn geometry(disk: &Path) -> Option<(u64, u64)> {
    let size = number_in(&disk.join("size"))?;
    let sector = number_in(&disk.join("queue/logical_block_size"))?;
    // sysfs counts in units of 512 bytes whatever the disk's sectors are.
    (512..=4096)
        .contains(&sector)
        .then(|| (size.saturating_mul(512) / sector, sector))
}

/// Reads the main partition table of an opened disk with sectors of `sector` bytes.
pub(crate) fn read_table(
    device: &File,
    path: &Path,
    sector: u64,
) -> Result<(gpt::Header, Vec<u8>), GrowError> {
    let mut bytes = vec![0; sector as usize];
    device
        .read_exact_at(&mut bytes, sector)
        .map_err(io_error("read", path))?;
    let header = gpt::Header::parse(&bytes, 1).map_err(|source| GrowError::Table {
        path: path.to_owned(),
        source,
    })?;
    let mut entries = vec![0; header.entries_length()];
    device
        .read_exact_at(&mut entries, header.entries_at.saturating_mul(sector))
        .map_err(io_error("read", path))?;
    Ok((header, entries))
}

/// Number and GUID of each partition of the disk with this node, from its table. Kernels before
/// 6.14 don't tell the GUIDs.
pub(crate) fn partition_guids(sys: &Path, node: &Path) -> Option<Vec<(u32, String)>> {
    let (_, sector) = geometry(&sys.join("class/block").join(node.file_name()?))?;
    let device = File::open(node).ok()?;
    let (header, entries) = read_table(&device, node, sector).ok()?;
    let partitions = header.partitions(&entries).ok()?;
    Some(partitions.into_iter().map(|p| (p.number, p.guid)).collect())
}

fn write_table(
    device: &File,
    growth: &gpt::Growth,
    entries_at: u64,
    sector: u64,
) -> io::Result<()> {
    device.write_all_at(&growth.entries, growth.backup_entries_at * sector)?;
    device.write_all_at(&growth.backup_header, growth.backup_header_at * sector)?;
    device.sync_all()?;
    if entries_at == 2 {
        // Header and entries are adjacent and written at once, so that a power failure between the
        // two is as unlikely as possible.
        let mut both = growth.header.clone();
        both.extend_from_slice(&growth.entries);
        device.write_all_at(&both, sector)?;
    } else {
        device.write_all_at(&growth.entries, entries_at * sector)?;
        device.write_all_at(&growth.header, sector)?;
    }
    device.sync_all()
}

/// Enlarges the mounted ext4 at `mount_point` to the size of its device. Returns the old and the
/// new size in bytes, or `None` if it is unchanged.
pub(crate) fn grow_file_system(
    sys: &Path,
    partition: &str,
    mount_point: &Path,
) -> Result<Option<(u64, u64)>, GrowError> {
    let device = Path::new("/dev").join(partition);
    let size = number_in(&sys.join("class/block").join(partition).join("size"));
    let Some(before) = superblock(&device)? else {
        return Ok(None);
    };
    let blocks = size.unwrap_or(0).saturating_mul(512) / before.block_size;
    if blocks
        .saturating_sub(before.blocks)
        .saturating_mul(before.block_size)
        < LEAST
    {
        return Ok(None);
    }
    let root = File::open(mount_point).map_err(io_error("open", mount_point))?;
    rustix::fs::ext4_ioc_resize_fs(&root, blocks)
        .map_err(|error| io_error("resize", mount_point)(error.into()))?;
    Ok(Some((
        before.blocks * before.block_size,
        blocks * before.block_size,
    )))
}

/// The ext4 superblock of a device, if it has one.
pub(crate) fn superblock(device: &Path) -> Result<Option<ext4::Superblock>, GrowError> {
    let file = File::open(device).map_err(io_error("open", device))?;
    let mut bytes = [0; ext4::LENGTH];
    match file.read_exact_at(&mut bytes, ext4::OFFSET) {
        Ok(()) => Ok(ext4::Superblock::parse(&bytes)),
        // A device without a medium, or too small for a file system.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(io_error("read", device)(error)),
    }
}

fn number_in(path: &Path) -> Option<u64> {
    crate::files::first_line(path)?.parse().ok()
}

pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> GrowError {
    let path = path.to_owned();
    move |source| GrowError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::disk::mend;

    /// Runs a tool of the distribution. `None` if the machine does not have it.
    fn run(program: &str, arguments: &[&str], input: &str) -> Option<bool> {
        let mut child = match Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                keelson_testing::skip(program, error);
                return None;
            }
        };
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(input.as_bytes()).unwrap();
        drop(pipe);
        Some(child.wait().unwrap().success())
    }

    #[test]
    fn a_real_table_grows_with_its_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let name = path.to_str().unwrap();
        let disk = File::create_new(&path).unwrap();
        disk.set_len(64 << 20).unwrap();
        let layout = "label: gpt\nsize=16384, name=esp\nname=root\n";
        let Some(made) = run("/usr/sbin/sfdisk", &["-q", name], layout) else {
            return;
        };
        assert!(made);
        disk.set_len(256 << 20).unwrap();
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let (header, entries) = read_table(&device, &path, 512).unwrap();
        let sectors = (256 << 20) / 512;
        let growth = gpt::plan_growth(&header, &entries, 2, sectors, 512, 1)
            .unwrap()
            .unwrap();
        write_table(&device, &growth, header.entries_at, 512).unwrap();
        assert_eq!(run("/usr/sbin/sfdisk", &["--verify", name], ""), Some(true));
        let (header, entries) = read_table(&device, &path, 512).unwrap();
        let partitions = header.partitions(&entries).unwrap();
        assert_eq!(partitions.len(), 2);
        assert!(partitions[1].last > sectors - 4096);
        // The copy at the end is as good as the main table.
        let mut sector = [0; 512];
        let end = growth.backup_header_at;
        device.read_exact_at(&mut sector, end * 512).unwrap();
        let copy = gpt::Header::parse(&sector, end).unwrap();
        let mut entries = vec![0; copy.entries_length()];
        device
            .read_exact_at(&mut entries, copy.entries_at * 512)
            .unwrap();
        assert_eq!(copy.partitions(&entries).unwrap(), partitions);
    }

    #[test]
    fn a_power_cut_between_the_writes_leaves_a_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let name = path.to_str().unwrap();
        let disk = File::create_new(&path).unwrap();
        disk.set_len(12 << 20).unwrap();
        let layout = "label: gpt\nsize=16384, name=esp\nname=root\n";
        let Some(made) = run("/usr/sbin/sfdisk", &["-q", name], layout) else {
            return;
        };
        assert!(made);
        disk.set_len(16 << 20).unwrap();
        let sectors = (16 << 20) / 512;
        let before = std::fs::read(&path).unwrap();
        let (header, entries) = read_table(&disk_for_writing(&path), &path, 512).unwrap();
        let growth = gpt::plan_growth(&header, &entries, 2, sectors, 512, 1)
            .unwrap()
            .unwrap();
        // The sectors in the order in which they are written, each cut after this many.
        let mut writes: Vec<(u64, &[u8])> = Vec::new();
        for (at, bytes) in [
            (growth.backup_entries_at, &growth.entries),
            (growth.backup_header_at, &growth.backup_header),
            (1, &growth.header),
            (2, &growth.entries),
        ] {
            writes.extend((at..).zip(bytes.chunks(512)));
        }
        for cut in 0..=writes.len() {
            std::fs::write(&path, &before).unwrap();
            let device = disk_for_writing(&path);
            for (at, bytes) in writes.iter().take(cut) {
                device.write_all_at(bytes, at * 512).unwrap();
            }
            let whole = read_table(&device, &path, 512)
                .is_ok_and(|(header, entries)| header.partitions(&entries).is_ok());
            let expected = match whole {
                true => mend::Finding::Nothing,
                false => mend::Finding::Mended,
            };
            assert_eq!(mend::mend(&path, sectors, 512).unwrap(), expected, "{cut}");
            // The next boot completes the growth whatever was written.
            let (header, entries) = read_table(&device, &path, 512).unwrap();
            let plan = gpt::plan_growth(&header, &entries, 2, sectors, 512, 1).unwrap();
            if let Some(growth) = plan {
                write_table(&device, &growth, header.entries_at, 512).unwrap();
            }
            let (header, entries) = read_table(&device, &path, 512).unwrap();
            let partitions = header.partitions(&entries).unwrap();
            assert_eq!(partitions.len(), 2);
            assert_eq!(partitions[1].last, growth.last, "{cut}");
        }
    }

    fn disk_for_writing(path: &Path) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(path).unwrap()
    }

    #[test]
    fn a_real_file_system_is_recognised() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let disk = File::create_new(&path).unwrap();
        disk.set_len(16 << 20).unwrap();
        assert_eq!(superblock(&path).unwrap(), None);
        let uuid = "0b5c9d3e-2f60-4b8a-9c1e-7a4f5d6e8f90";
        let name = path.to_str().unwrap();
        let arguments = ["-q", "-b", "1024", "-L", "root", "-U", uuid, name];
        let Some(made) = run("/usr/sbin/mkfs.ext4", &arguments, "") else {
            return;
        };
        assert!(made);
        let found = superblock(&path).unwrap().unwrap();
        assert_eq!(found.blocks * found.block_size, 16 << 20);
        assert_eq!(found.label, b"root");
        assert_eq!(found.uuid, uuid);
        disk.set_len(100).unwrap();
        assert_eq!(superblock(&path).unwrap(), None);
    }
}
