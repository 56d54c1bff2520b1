//! GUID partition tables (UEFI specification 2.10, section 5.3): reading, and moving the table's
//! end to the end of a disk that has become larger.

/// Bytes of the header that the specification defines.
const HEADER_LENGTH: usize = 92;
/// Where the entries of the main table begin, if nobody has chosen another place.
pub(crate) const MAIN_ENTRIES: u64 = 2;
/// A table with more entries than this is refused.
const MOST_ENTRIES: u32 = 1024;

/// A table that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GptError {
    /// No header of a GUID partition table.
    #[error("no GUID partition table")]
    NotGpt,
    /// A checksum is wrong.
    #[error("checksum of the {0} is wrong")]
    Checksum(&'static str),
    /// A member has an impossible value.
    #[error("partition table member {0} is out of range")]
    Range(&'static str),
}

/// The header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    bytes: Vec<u8>,
    /// Sector after the last one that partitions may use.
    last_usable: u64,
    alternate: u64,
    /// First sector of the entries.
    pub(crate) entries_at: u64,
    entry_count: u32,
    entry_size: u32,
    entries_checksum: u32,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Number, from 1.
    pub(crate) number: u32,
    /// Unique GUID, lower case.
    pub(crate) guid: String,
    /// First sector.
    pub(crate) first: u64,
    /// Last sector, included.
    pub(crate) last: u64,
}

impl Header {
    /// Reads the header in the sector with this number.
    pub(crate) fn parse(bytes: &[u8], sector: u64) -> Result<Self, GptError> {
        if bytes.get(..8) != Some(b"EFI PART") {
            return Err(GptError::NotGpt);
        }
        let length = u32_at(bytes, 12)? as usize;
        if length < HEADER_LENGTH || length > bytes.len() {
            return Err(GptError::Range("header size"));
        }
        let mut checked = bytes.get(..length).ok_or(GptError::NotGpt)?.to_vec();
        put(&mut checked, 16, &[0; 4]);
        if crc32(&checked) != u32_at(bytes, 16)? {
            return Err(GptError::Checksum("header"));
        }
        if u64_at(bytes, 24)? != sector {
            return Err(GptError::Range("own sector"));
        }
        let header = Self {
            alternate: u64_at(bytes, 32)?,
            last_usable: u64_at(bytes, 48)?,
            entries_at: u64_at(bytes, 72)?,
            entry_count: u32_at(bytes, 80)?,
            entry_size: u32_at(bytes, 84)?,
            entries_checksum: u32_at(bytes, 88)?,
            bytes: bytes.get(..length).ok_or(GptError::NotGpt)?.to_vec(),
        };
        if header.entry_count == 0 || header.entry_count > MOST_ENTRIES {
            return Err(GptError::Range("number of entries"));
        }
        if header.entry_size < 128
            || header.entry_size > 4096
            || !header.entry_size.is_multiple_of(8)
        {
            return Err(GptError::Range("size of an entry"));
        }
        Ok(header)
    }

    /// The main header that belongs to this one, which is the copy at the disk's end: the content
    /// of sector 1. Its entries begin in sector [`MAIN_ENTRIES`].
    pub(crate) fn main_of_copy(&self, own: u64, sector_size: u64) -> Vec<u8> {
        seal(self.bytes.clone(), 1, own, MAIN_ENTRIES, sector_size)
    }

    /// Bytes of all entries.
    pub(crate) fn entries_length(&self) -> usize {
        self.entry_count as usize * self.entry_size as usize
    }

    /// Reads the entries in use.
    pub(crate) fn partitions(&self, entries: &[u8]) -> Result<Vec<Partition>, GptError> {
        let entries = entries
            .get(..self.entries_length())
            .ok_or(GptError::Range("length of the entries"))?;
        if crc32(entries) != self.entries_checksum {
            return Err(GptError::Checksum("entries"));
        }
        let mut partitions = Vec::new();
        for (number, entry) in (1..).zip(entries.chunks_exact(self.entry_size as usize)) {
            if entry.iter().take(16).all(|byte| *byte == 0) {
                continue;
            }
            let guid = entry.get(16..32).unwrap_or_default();
            partitions.push(Partition {
                number,
                guid: guid_text(guid.try_into().unwrap_or_default()),
                first: u64_at(entry, 32)?,
                last: u64_at(entry, 40)?,
            });
        }
        Ok(partitions)
    }
}

/// The data to write, so that the table spans the whole disk and one partition reaches its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Header sector's content and entries of the copy at the disk's end, to be written first:
    /// until then the old table stays valid as a whole.
    pub(crate) backup_header: Vec<u8>,
    /// Sector of the copy's header: the last one.
    pub(crate) backup_header_at: u64,
    /// Sector of the copy's entries.
    pub(crate) backup_entries_at: u64,
    /// The main header.
    pub(crate) header: Vec<u8>,
    /// The entries, the same in both places.
    pub(crate) entries: Vec<u8>,
    /// First sector of the partition that grew.
    pub(crate) first: u64,
    /// Its new last sector.
    pub(crate) last: u64,
}

/// Plans to extend partition `number` to the end of a disk of `sectors` sectors of `sector_size`
/// bytes. `None` if it reaches the end already, if fewer than `least` sectors would be gained, or
/// if another partition follows it.
pub(crate) fn plan_growth(
    header: &Header,
    entries: &[u8],
    number: u32,
    sectors: u64,
    sector_size: u64,
    least: u64,
) -> Result<Option<Growth>, GptError> {
    let partitions = header.partitions(entries)?;
    let Some(partition) = partitions.iter().find(|p| p.number == number) else {
        return Err(GptError::Range("number of the partition"));
    };
    if partitions.iter().any(|other| other.first > partition.last) {
        return Ok(None);
    }
    let table = (header.entries_length() as u64).div_ceil(sector_size.max(1));
    let Some(last_usable) = sectors.checked_sub(table + 2) else {
        return Err(GptError::Range("size of the disk"));
    };
    // A partition ends at a full MiB, as partitioning tools align them.
    let alignment = ((1 << 20) / sector_size.max(1)).max(1);
    let last = ((last_usable + 1) / alignment * alignment).saturating_sub(1);
    if last < partition.last.saturating_add(least.max(1)) {
        return Ok(None);
    }
    let mut grown = entries
        .get(..header.entries_length())
        .ok_or(GptError::Range("length of the entries"))?
        .to_vec();
    let entry = (number as usize - 1) * header.entry_size as usize;
    put(&mut grown, entry + 40, &last.to_le_bytes());
    let mut base = header.bytes.clone();
    put(&mut base, 48, &last_usable.to_le_bytes());
    put(&mut base, 88, &crc32(&grown).to_le_bytes());
    let seal = |own, other, entries_at| seal(base.clone(), own, other, entries_at, sector_size);
    let end = sectors - 1;
    let backup_entries_at = last_usable + 1;
    Ok(Some(Growth {
        backup_header: seal(end, 1, backup_entries_at),
        backup_header_at: end,
        backup_entries_at,
        header: seal(1, end, header.entries_at),
        entries: grown,
        first: partition.first,
        last,
    }))
}

/// A header with its own sector, that of its copy and that of its entries, as the content of a
/// whole sector.
fn seal(mut bytes: Vec<u8>, own: u64, other: u64, entries_at: u64, sector_size: u64) -> Vec<u8> {
    put(&mut bytes, 16, &[0; 4]);
    put(&mut bytes, 24, &own.to_le_bytes());
    put(&mut bytes, 32, &other.to_le_bytes());
    put(&mut bytes, 72, &entries_at.to_le_bytes());
    let checksum = crc32(&bytes);
    put(&mut bytes, 16, &checksum.to_le_bytes());
    bytes.resize(sector_size as usize, 0);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, GptError> {
    let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    field.map(u32::from_le_bytes).ok_or(GptError::NotGpt)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, GptError> {
    let field = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
    field.map(u64::from_le_bytes).ok_or(GptError::NotGpt)
}

/// A GUID in text: the first three fields are little-endian on disk.
fn guid_text(bytes: [u8; 16]) -> String {
    uuid::Uuid::from_bytes_le(bytes).hyphenated().to_string()
}

/// CRC-32 of ISO 3309 (polynomial 0xEDB88320, reflected).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (crc & 1).wrapping_neg();
            crc = crc >> 1 ^ 0xEDB8_8320 & mask;
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with partitions of the given sectors on a disk of `sectors` sectors.
    fn table(partitions: &[(u64, u64)], sectors: u64) -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0u8; 128 * 128];
        for (at, (first, last)) in partitions.iter().enumerate() {
            let at = at * 128;
            entries[at..at + 32].fill(0x11 + at as u8 / 128);
            entries[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            entries[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
        }
        let mut header = vec![0u8; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x10000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&1u64.to_le_bytes());
        header[32..40].copy_from_slice(&(sectors - 1).to_le_bytes());
        header[40..48].copy_from_slice(&34u64.to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - 34).to_le_bytes());
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        (header, entries)
    }

    #[test]
    fn checksum_of_the_standard_test_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn the_last_partition_grows_and_the_result_is_a_valid_table() {
        let (header, entries) = table(&[(2048, 4095), (4096, 8191)], 10240);
        let header = Header::parse(&header, 1).unwrap();
        let sectors = 1 << 20;
        let growth = plan_growth(&header, &entries, 2, sectors, 512, 2048)
            .unwrap()
            .unwrap();
        assert_eq!(growth.first, 4096);
        assert_eq!((growth.last + 1) % 2048, 0);
        assert!(growth.last < growth.backup_entries_at);
        assert!(growth.backup_entries_at + 32 <= growth.backup_header_at);
        let main = Header::parse(&growth.header, 1).unwrap();
        let copy = Header::parse(&growth.backup_header, sectors - 1).unwrap();
        assert_eq!(main.alternate, sectors - 1);
        assert_eq!(copy.alternate, 1);
        assert_eq!(main.last_usable, growth.backup_entries_at - 1);
        let grown = main.partitions(&growth.entries).unwrap();
        assert_eq!(grown, copy.partitions(&growth.entries).unwrap());
        assert_eq!(grown[1].last, growth.last);
        assert_eq!(grown[0].last, 4095);
        // After this, nothing is left to do.
        let again = plan_growth(&main, &growth.entries, 2, sectors, 512, 2048);
        assert_eq!(again, Ok(None));
    }

    #[test]
    fn a_partition_with_another_behind_it_stays() {
        let (header, entries) = table(&[(2048, 4095), (4096, 8191)], 10240);
        let header = Header::parse(&header, 1).unwrap();
        let growth = plan_growth(&header, &entries, 1, 1 << 20, 512, 2048);
        assert_eq!(growth, Ok(None));
    }

    #[test]
    fn a_damaged_table_is_refused() {
        let (mut header, mut entries) = table(&[(2048, 4095)], 10240);
        entries[200] ^= 1;
        let parsed = Header::parse(&header, 1).unwrap();
        assert_eq!(
            parsed.partitions(&entries),
            Err(GptError::Checksum("entries"))
        );
        header[50] ^= 1;
        assert_eq!(Header::parse(&header, 1), Err(GptError::Checksum("header")));
        assert_eq!(Header::parse(b"", 1), Err(GptError::NotGpt));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(mut bytes in proptest::collection::vec(0u8.., 0..600)) {
            let _ = Header::parse(&bytes, 1);
            if bytes.len() >= 8 {
                bytes[..8].copy_from_slice(b"EFI PART");
                let _ = Header::parse(&bytes, 1);
            }
        }

        #[test]
        fn growth_never_leaves_the_disk(
            sectors in 0u64..1 << 40, last in 4096u64..1 << 40, exponent in 9u32..13
        ) {
            let (header, entries) = table(&[(4096, last)], 10240);
            let header = Header::parse(&header, 1).unwrap();
            let size = 1 << exponent;
            if let Ok(Some(growth)) = plan_growth(&header, &entries, 1, sectors, size, 1) {
                proptest::prop_assert!(growth.last > last);
                proptest::prop_assert!(growth.last < growth.backup_entries_at);
                proptest::prop_assert_eq!(growth.backup_header_at, sectors - 1);
            }
        }
    }
}
