//! Restores the main partition table from its copy at the disk's end.
//!
//! A table is more than one sector, so a power failure while it is written (see `grow`) can leave
//! header and entries that do not belong together. The kernel then sees no partitions at all: it
//! only reads the copy when it is started with `gpt`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::gpt::{self, GptError, Header};
use super::grow::{GrowError, io_error, read_table};

/// What was found on a disk without partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The main table was written anew; the kernel must read it again.
    Mended,
    /// The table was written for sectors of this many bytes, which is not the disk's size.
    OtherSectors(u64),
    /// Nothing that can be used.
    Nothing,
}

/// Byte of the protective MBR that holds the type of its first partition, and that type.
const PROTECTIVE: (u64, u8) = (450, 0xEE);
/// The sizes of sectors that disks have.
const SECTORS: [u64; 2] = [512, 4096];

/// Examines the disk in file `path`, which has `sectors` sectors of `sector` bytes, and restores
/// its table if the copy is good.
///
/// Only a disk whose first sector says that it has a GUID partition table is written to: an old
/// copy at its end may have survived a change to another kind of table.
pub(crate) fn mend(path: &Path, sectors: u64, sector: u64) -> Result<Finding, GrowError> {
    let device = File::open(path).map_err(io_error("open", path))?;
    for other in SECTORS.into_iter().filter(|size| *size != sector) {
        if read_table(&device, path, other).is_ok() {
            return Ok(Finding::OtherSectors(other));
        }
    }
    let damaged = match read_table(&device, path, sector) {
        Ok((header, entries)) => header.partitions(&entries).is_err(),
        Err(GrowError::Table { .. }) => true,
        Err(error) => return Err(error),
    };
    let mut kind = [0];
    device
        .read_exact_at(&mut kind, PROTECTIVE.0)
        .map_err(io_error("read", path))?;
    if !damaged || kind != [PROTECTIVE.1] {
        return Ok(Finding::Nothing);
    }
    let Some(last) = sectors.checked_sub(1) else {
        return Ok(Finding::Nothing);
    };
    let Ok((copy, entries)) = read_copy(&device, path, last, sector) else {
        return Ok(Finding::Nothing);
    };
    let mut bytes = copy.main_of_copy(last, sector);
    bytes.extend_from_slice(&entries);
    let device = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(io_error("open for writing", path))?;
    // The entries first: with them alone the table is as damaged as before.
    let entries_at = gpt::MAIN_ENTRIES * sector;
    let (header, entries) = bytes.split_at(sector as usize);
    device
        .write_all_at(entries, entries_at)
        .and_then(|()| device.sync_all())
        .and_then(|()| device.write_all_at(header, sector))
        .and_then(|()| device.sync_all())
        .map_err(io_error("write", path))?;
    Ok(Finding::Mended)
}

/// Reads the copy, whose header is in the last sector, and checks it as a whole.
fn read_copy(
    device: &File,
    path: &Path,
    last: u64,
    sector: u64,
) -> Result<(Header, Vec<u8>), GrowError> {
    let table = |source: GptError| GrowError::Table {
        path: path.to_owned(),
        source,
    };
    let mut bytes = vec![0; sector as usize];
    device
        .read_exact_at(&mut bytes, last.saturating_mul(sector))
        .map_err(io_error("read", path))?;
    let header = Header::parse(&bytes, last).map_err(table)?;
    let mut entries = vec![0; header.entries_length()];
    device
        .read_exact_at(&mut entries, header.entries_at.saturating_mul(sector))
        .map_err(io_error("read", path))?;
    header.partitions(&entries).map_err(table)?;
    Ok((header, entries))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SIZE: u64 = 12 << 20;

    /// A disk with two partitions made by sfdisk; `None` without this tool.
    fn disk(directory: &Path) -> Option<std::path::PathBuf> {
        let path = directory.join("disk");
        File::create_new(&path).unwrap().set_len(SIZE).unwrap();
        let layout = directory.join("layout");
        std::fs::write(&layout, "label: gpt\nsize=16384, name=esp\nname=root\n").unwrap();
        let status = Command::new("/usr/sbin/sfdisk")
            .arg("-q")
            .arg(&path)
            .stdin(File::open(&layout).unwrap())
            .stdout(Stdio::null())
            .status();
        match status {
            Ok(status) => assert!(status.success()),
            Err(error) => {
                keelson_testing::skip("sfdisk", error);
                return None;
            }
        }
        Some(path)
    }

    fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    #[test]
    fn a_torn_table_is_restored_byte_for_byte() {
        let directory = tempfile::tempdir().unwrap();
        let Some(path) = disk(directory.path()) else {
            return;
        };
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(mend(&path, SIZE / 512, 512).unwrap(), Finding::Nothing);
        // One of: new entries under an old header, an empty header, nothing at all.
        for (offset, torn) in [(1024 + 40, 8), (512, 512), (512, 33 * 512)] {
            overwrite(&path, offset, &vec![0x5a; torn]);
            assert_eq!(mend(&path, SIZE / 512, 512).unwrap(), Finding::Mended);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn another_kind_of_table_and_a_bad_copy_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let Some(path) = disk(directory.path()) else {
            return;
        };
        overwrite(&path, 512, &[0; 512]);
        overwrite(&path, SIZE - 512 + 20, &[1]);
        assert_eq!(mend(&path, SIZE / 512, 512).unwrap(), Finding::Nothing);
        overwrite(&path, SIZE - 512 + 20, &[0]);
        overwrite(&path, 450, &[0x83]);
        assert_eq!(mend(&path, SIZE / 512, 512).unwrap(), Finding::Nothing);
    }

    #[test]
    fn a_table_for_other_sectors_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let Some(path) = disk(directory.path()) else {
            return;
        };
        let before = std::fs::read(&path).unwrap();
        let found = mend(&path, SIZE / 4096, 4096).unwrap();
        assert_eq!(found, Finding::OtherSectors(512));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
