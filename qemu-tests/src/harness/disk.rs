//! Looking at disk images from outside: partitions, and whether an ext4 was left clean.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::error::HarnessError;
use super::process::{CommandOutput, run};

/// Bytes of a sector in QEMU's disks.
const SECTOR: u64 = 512;
/// Largest partition table that is read: 128 entries of 128 bytes are usual.
const MAX_ENTRIES: u32 = 1024;

/// Copies an image without writing its holes. File systems that can share blocks copy nothing.
///
/// # Errors
/// `cp` fails.
pub fn copy_sparse(from: &Path, to: &Path) -> Result<(), HarnessError> {
    let mut command = Command::new("cp");
    command.args(["--sparse=always", "--reflink=auto", "--"]);
    command.arg(from).arg(to);
    run(&mut command, None, Duration::from_secs(600))?.success()?;
    Ok(())
}

/// A partition of a GPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Name in the table.
    pub name: String,
    /// First byte in the image.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The partitions of a raw image (UEFI specification 2.10, section 5.3).
///
/// # Errors
/// The image can't be read or holds no partition table.
pub fn partitions(image: &Path) -> Result<Vec<Partition>, HarnessError> {
    let file = File::open(image).map_err(HarnessError::io("open", image))?;
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)
            .map_err(HarnessError::io("read", image))?;
        Ok::<_, HarnessError>(bytes)
    };
    let wrong = |problem: &str| HarnessError::Disk {
        path: image.to_owned(),
        problem: problem.to_owned(),
    };
    let header = read(SECTOR, 92)?;
    if !header.starts_with(b"EFI PART") {
        return Err(wrong("has no GPT"));
    }
    let (Some(start), Some(count), Some(size)) = (
        u64_at(&header, 72),
        u32_at(&header, 80),
        u32_at(&header, 84),
    ) else {
        return Err(wrong("GPT header is cut short"));
    };
    if count > MAX_ENTRIES || !(128..=4096).contains(&size) {
        return Err(wrong("GPT header is implausible"));
    }
    let table = read(start.saturating_mul(SECTOR), count as usize * size as usize)?;
    Ok(table
        .chunks_exact(size as usize)
        .filter_map(partition)
        .collect())
}

/// Writes the table of a raw image anew for sectors of 4096 bytes. Partitions stay where they
/// are, in bytes.
///
/// # Errors
/// The image can't be read or written, or it holds no table for sectors of 512 bytes.
pub fn use_large_sectors(image: &Path) -> Result<(), HarnessError> {
    const LARGE: u64 = 4096;
    let file = File::options()
        .read(true)
        .write(true)
        .open(image)
        .map_err(HarnessError::io("open", image))?;
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)
            .map_err(HarnessError::io("read", image))?;
        Ok::<_, HarnessError>(bytes)
    };
    let mut header = read(SECTOR, 92)?;
    let mut entries = read(2 * SECTOR, 128 * 128)?;
    for entry in entries.chunks_exact_mut(128) {
        let (Some(first), Some(last)) = (u64_at(entry, 32), u64_at(entry, 40)) else {
            continue;
        };
        if last > 0 {
            let end = (last + 1) * SECTOR / LARGE - 1;
            entry[32..40].copy_from_slice(&(first * SECTOR / LARGE).to_le_bytes());
            entry[40..48].copy_from_slice(&end.to_le_bytes());
        }
    }
    let length = file
        .metadata()
        .map_err(HarnessError::io("look at", image))?
        .len();
    let last = length / LARGE - 1;
    let table = entries.len() as u64 / LARGE;
    let write = |offset: u64, bytes: &[u8]| {
        file.write_all_at(bytes, offset)
            .map_err(HarnessError::io("write", image))
    };
    // The old table would still be found by whoever looks for small sectors.
    write(SECTOR, &vec![0; 33 * SECTOR as usize])?;
    for (own, other, entries_at) in [(1, last, 2), (last, 1, last - table)] {
        for (at, value) in [
            (24, own),
            (32, other),
            (40, 2 + table),
            (48, last - table - 1),
            (72, entries_at),
        ] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        header[16..20].fill(0);
        let checksum = crc32(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        write(entries_at * LARGE, &entries)?;
        write(own * LARGE, &header)?;
    }
    Ok(())
}

/// The checksum of zlib and of the UEFI specification.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0xEDB8_8320);
        }
    }
    !crc
}

fn partition(entry: &[u8]) -> Option<Partition> {
    if entry.get(..16)?.iter().all(|byte| *byte == 0) {
        return None;
    }
    let first = u64_at(entry, 32)?;
    let last = u64_at(entry, 40)?;
    let units: Vec<u16> = entry
        .get(56..128)?
        .chunks_exact(2)
        .map(|pair| u16::from(pair[0]) | u16::from(pair[1]) << 8)
        .take_while(|unit| *unit != 0)
        .collect();
    Some(Partition {
        name: String::from_utf16_lossy(&units),
        offset: first.checked_mul(SECTOR)?,
        length: last
            .checked_sub(first)?
            .checked_add(1)?
            .checked_mul(SECTOR)?,
    })
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let part = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(part.try_into().ok()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let part = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

/// The state of a file system by its ext4 superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ext4State {
    /// `s_state` has the "cleanly unmounted" bit and not the "errors detected" one.
    pub clean: bool,
    /// The journal must be replayed: the file system was not unmounted.
    pub needs_recovery: bool,
}

impl Ext4State {
    /// Reads the superblock of the partition (kernel documentation, ext4 "Super Block").
    ///
    /// # Errors
    /// The image can't be read, or there is no ext4.
    pub fn read(image: &Path, partition: &Partition) -> Result<Self, HarnessError> {
        let mut block = [0; 1024];
        File::open(image)
            .and_then(|file| file.read_exact_at(&mut block, partition.offset.saturating_add(1024)))
            .map_err(HarnessError::io("read", image))?;
        Self::parse(&block).ok_or_else(|| HarnessError::Disk {
            path: image.to_owned(),
            problem: format!("partition {:?} holds no ext4", partition.name),
        })
    }

    fn parse(block: &[u8]) -> Option<Self> {
        const VALID: u32 = 1;
        const ERRORS: u32 = 2;
        const INCOMPAT_RECOVER: u32 = 4;
        let magic_and_state = u32_at(block, 0x38)?;
        if magic_and_state & 0xffff != 0xef53 {
            return None;
        }
        let state = magic_and_state >> 16;
        Some(Self {
            clean: state & VALID != 0 && state & ERRORS == 0,
            needs_recovery: u32_at(block, 0x60)? & INCOMPAT_RECOVER != 0,
        })
    }
}

/// Checks an ext4 with `e2fsck -fn`, which changes nothing.
///
/// # Errors
/// The program is missing.
pub fn check_ext4(image: &Path, partition: &Partition) -> Result<CommandOutput, HarnessError> {
    let mut command = Command::new("/usr/sbin/e2fsck");
    command.args(["-f", "-n"]);
    command.arg(format!("{}?offset={}", image.display(), partition.offset));
    run(&mut command, None, Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image_with_gpt() -> Vec<u8> {
        let mut image = vec![0; 64 * 512];
        image[512..520].copy_from_slice(b"EFI PART");
        image[512 + 72..512 + 80].copy_from_slice(&2u64.to_le_bytes());
        image[512 + 80..512 + 84].copy_from_slice(&128u32.to_le_bytes());
        image[512 + 84..512 + 88].copy_from_slice(&128u32.to_le_bytes());
        let entry = &mut image[1024..1152];
        entry[0] = 1;
        entry[32..40].copy_from_slice(&40u64.to_le_bytes());
        entry[40..48].copy_from_slice(&47u64.to_le_bytes());
        for (index, unit) in "root".encode_utf16().enumerate() {
            entry[56 + 2 * index..58 + 2 * index].copy_from_slice(&unit.to_le_bytes());
        }
        image
    }

    #[test]
    fn finds_partitions_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        std::fs::write(&path, image_with_gpt()).unwrap();
        let root = Partition {
            name: "root".to_owned(),
            offset: 40 * 512,
            length: 8 * 512,
        };
        assert_eq!(partitions(&path).unwrap(), [root]);
    }

    #[test]
    fn refuses_what_is_no_partition_table() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        for change in [512, 512 + 82, 512 + 86, 512 + 79] {
            let mut image = image_with_gpt();
            image[change] = 0x7f;
            std::fs::write(&path, image).unwrap();
            assert!(partitions(&path).is_err(), "byte {change}");
        }
        std::fs::write(&path, b"short").unwrap();
        assert!(partitions(&path).is_err());
    }

    #[test]
    fn tells_a_clean_ext4_from_one_in_use() {
        let mut block = vec![0; 1024];
        assert_eq!(Ext4State::parse(&block), None);
        block[0x38..0x3c].copy_from_slice(&[0x53, 0xef, 1, 0]);
        let clean = Ext4State {
            clean: true,
            needs_recovery: false,
        };
        assert_eq!(Ext4State::parse(&block), Some(clean));
        block[0x60] = 4;
        assert!(Ext4State::parse(&block).unwrap().needs_recovery);
        block[0x3a] = 3;
        assert!(!Ext4State::parse(&block).unwrap().clean);
    }
}
