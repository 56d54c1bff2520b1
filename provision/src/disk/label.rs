//! Tells the file system of a seed disk, and its labels, from its first blocks.

/// File systems that seed disks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// ISO 9660.
    Iso9660,
    /// UDF, without ISO 9660 beside it.
    Udf,
}

impl FileSystem {
    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vfat => "vfat",
            Self::Iso9660 => "iso9660",
            Self::Udf => "udf",
        }
    }
}

/// Largest root directory of a FAT that is searched for its label, in bytes.
const MAX_ROOT: u64 = 64 << 10;

/// Reads bytes at an offset; fewer than wanted at the end of the device.
pub trait Blocks {
    /// Up to `length` bytes at `offset`.
    fn at(&self, offset: u64, length: usize) -> Vec<u8>;
}

/// The file system with its labels, without blanks at the ends. A FAT has one in its boot sector
/// and one in its root directory; programs that change labels change one of them.
pub fn examine(blocks: &dyn Blocks) -> Option<(FileSystem, Vec<String>)> {
    if let Some(labels) = fat(blocks) {
        return Some((FileSystem::Vfat, labels));
    }
    // ECMA-119: the first volume descriptor is at sector 16; ECMA-167 shares the place.
    let mut udf = false;
    for sector in 16..24 {
        let descriptor = blocks.at(sector * 2048, 72);
        match descriptor.get(1..6) {
            Some(b"CD001") if descriptor.first() == Some(&1) => {
                return Some((FileSystem::Iso9660, vec![text(descriptor.get(40..72)?)]));
            }
            Some(b"NSR02" | b"NSR03") => udf = true,
            _ => {}
        }
    }
    udf.then(|| (FileSystem::Udf, Vec::new()))
}

/// Microsoft, "FAT: General Overview of On-Disk Format".
fn fat(blocks: &dyn Blocks) -> Option<Vec<String>> {
    let boot = blocks.at(0, 512);
    let u16_at = |at: usize| {
        Some(u64::from(u16::from_le_bytes(
            boot.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let u32_at = |at: usize| {
        Some(u64::from(u32::from_le_bytes(
            boot.get(at..at + 4)?.try_into().ok()?,
        )))
    };
    let byte = |at: usize| boot.get(at).map(|byte| u64::from(*byte));
    if boot.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let sector = u16_at(11)?;
    let (reserved, tables) = (u16_at(14)?, byte(16)?);
    let cluster = byte(13)?.checked_mul(sector)?;
    let plausible = matches!(sector, 512 | 1024 | 2048 | 4096)
        && cluster > 0
        && reserved > 0
        && (1..=2).contains(&tables);
    if !plausible {
        return None;
    }
    let small = u16_at(22)?;
    let (label_at, root, length) = if small > 0 {
        let root = (reserved + tables * small) * sector;
        (43, root, u16_at(17)?.checked_mul(32)?)
    } else {
        let data = (reserved + tables.checked_mul(u32_at(36)?)?).checked_mul(sector)?;
        let first = u32_at(44)?.checked_sub(2)?.checked_mul(cluster)?;
        (71, data.checked_add(first)?, cluster)
    };
    // The words FAT12, FAT16 and FAT32 stand behind the label. A partition table has no such thing.
    if boot.get(label_at + 11..label_at + 14)? != b"FAT" {
        return None;
    }
    let mut labels = vec![text(boot.get(label_at..label_at + 11)?)];
    let length = usize::try_from(length.min(MAX_ROOT)).ok()?;
    for entry in blocks.at(root, length).chunks_exact(32) {
        match (entry.first()?, entry.get(11)?) {
            (0, _) => break,
            // A label, neither deleted nor part of a long name.
            (first, attributes)
                if *first != 0xe5 && attributes & 0x08 != 0 && *attributes != 0x0f =>
            {
                labels.push(text(entry.get(..11)?));
                break;
            }
            _ => {}
        }
    }
    labels.dedup();
    Some(labels)
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_matches([' ', '\0']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Blocks for Vec<u8> {
        fn at(&self, offset: u64, length: usize) -> Vec<u8> {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(self.len());
            let end = start.saturating_add(length).min(self.len());
            self[start..end].to_vec()
        }
    }

    fn fat16() -> Vec<u8> {
        let mut disk = vec![0; 64 << 10];
        disk[11..13].copy_from_slice(&512u16.to_le_bytes());
        disk[13] = 4;
        disk[14..16].copy_from_slice(&1u16.to_le_bytes());
        disk[16] = 2;
        disk[17..19].copy_from_slice(&512u16.to_le_bytes());
        disk[22..24].copy_from_slice(&16u16.to_le_bytes());
        disk[43..54].copy_from_slice(b"CIDATA     ");
        disk[54..62].copy_from_slice(b"FAT16   ");
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn labels_of_both_places_are_found() {
        let mut disk = fat16();
        assert_eq!(
            examine(&disk),
            Some((FileSystem::Vfat, vec!["CIDATA".to_owned()]))
        );
        let root = 33 * 512;
        disk[root..root + 11].copy_from_slice(b"README  TXT");
        disk[root + 11] = 0x20;
        disk[root + 32..root + 43].copy_from_slice(b"config-2   ");
        disk[root + 43] = 0x08;
        let labels = vec!["CIDATA".to_owned(), "config-2".to_owned()];
        assert_eq!(examine(&disk), Some((FileSystem::Vfat, labels)));
    }

    #[test]
    fn discs_are_told_apart() {
        let mut disk = vec![0; 80 << 10];
        assert_eq!(examine(&disk), None);
        disk[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\0BEA01");
        disk[17 * 2048..17 * 2048 + 6].copy_from_slice(b"\0NSR02");
        assert_eq!(examine(&disk), Some((FileSystem::Udf, Vec::new())));
        disk[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\x01CD001");
        disk[16 * 2048 + 40..16 * 2048 + 72].copy_from_slice(b"cidata                          ");
        assert_eq!(
            examine(&disk),
            Some((FileSystem::Iso9660, vec!["cidata".to_owned()]))
        );
    }

    proptest::proptest! {
        #[test]
        fn any_disk_is_examined(mut head in proptest::collection::vec(proptest::num::u8::ANY, 512..2048)) {
            head[510] = 0x55;
            head[511] = 0xaa;
            examine(&head);
        }
    }
}
