//! The fields of the ext4 superblock that booting needs
//! (`Documentation/filesystems/ext4/super.rst`).

/// Where the superblock begins, in bytes from the start of the file system.
pub(crate) const OFFSET: u64 = 1024;
/// Its length in bytes.
pub(crate) const LENGTH: usize = 1024;

/// Members of the superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Number of blocks.
    pub(crate) blocks: u64,
    /// Bytes in a block.
    pub(crate) block_size: u64,
    /// Volume name, without its padding.
    pub(crate) label: Vec<u8>,
    /// UUID in the usual notation, lower case.
    pub(crate) uuid: String,
    /// Why the file system wants to be checked before it is mounted.
    pub(crate) complaint: Option<Complaint>,
}

/// Why a file system wants a check. A journal that must be replayed is none: mounting does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// The kernel found errors while it was mounted.
    Errors,
    /// It has no journal and was not unmounted.
    NotUnmounted,
    /// It was mounted as often as its owner allows between two checks (`tune2fs -c`).
    Mounts,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Errors => "is marked as having errors",
            Self::NotUnmounted => "was not unmounted and has no journal",
            Self::Mounts => "was mounted often without a check",
        })
    }
}

/// `s_state`: cleanly unmounted.
const VALID: u16 = 1;
/// `s_state`: errors detected.
const ERRORS: u16 = 2;
/// `s_feature_compat`: there is a journal.
const COMPAT_HAS_JOURNAL: u32 = 4;

/// The intervals in days (`tune2fs -i`) are not looked at: the clock can't be trusted yet.
fn complaint(state: u16, journal: bool, mounts: u16, most_mounts: i16) -> Option<Complaint> {
    if state & ERRORS != 0 {
        Some(Complaint::Errors)
    } else if state & VALID == 0 && !journal {
        Some(Complaint::NotUnmounted)
    } else if u16::try_from(most_mounts).is_ok_and(|most| most > 0 && mounts >= most) {
        Some(Complaint::Mounts)
    } else {
        None
    }
}

impl Superblock {
    /// Reads the bytes of a superblock. `None` if they are not one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let u16_at = |at: usize| -> Option<u16> {
            Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
        };
        if bytes.get(0x38..0x3a)? != [0x53, 0xEF] {
            return None;
        }
        let incompatible = u32_at(0x60)?;
        const INCOMPAT_64BIT: u32 = 0x80;
        let high = if incompatible & INCOMPAT_64BIT == 0 {
            0
        } else {
            u32_at(0x150)?
        };
        let shift = u32_at(0x18)?;
        // 64 KiB is the largest block that ext4 knows.
        if shift > 6 {
            return None;
        }
        let label = bytes.get(0x78..0x88)?;
        let uuid: &[u8; 16] = bytes.get(0x68..0x78)?.try_into().ok()?;
        Some(Self {
            blocks: u64::from(high) << 32 | u64::from(u32_at(4)?),
            block_size: 1024 << shift,
            label: label
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default()
                .to_vec(),
            uuid: uuid::Uuid::from_bytes(*uuid).hyphenated().to_string(),
            complaint: complaint(
                u16_at(0x3a)?,
                u32_at(0x5c)? & COMPAT_HAS_JOURNAL != 0,
                u16_at(0x34)?,
                u16_at(0x36)?.cast_signed(),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_mkfs_writes() {
        let mut bytes = vec![0; LENGTH];
        bytes[4..8].copy_from_slice(&262_144u32.to_le_bytes());
        bytes[0x18..0x1c].copy_from_slice(&2u32.to_le_bytes());
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xEF]);
        bytes[0x60..0x64].copy_from_slice(&0x80u32.to_le_bytes());
        bytes[0x68..0x78].copy_from_slice(&[0xab; 16]);
        bytes[0x78..0x7c].copy_from_slice(b"root");
        bytes[0x150..0x154].copy_from_slice(&1u32.to_le_bytes());
        let superblock = Superblock::parse(&bytes).unwrap();
        assert_eq!(superblock.blocks, (1 << 32) + 262_144);
        assert_eq!(superblock.block_size, 4096);
        assert_eq!(superblock.label, b"root");
        assert_eq!(superblock.uuid, "abababab-abab-abab-abab-abababababab");
    }

    #[test]
    fn a_check_is_wanted_for_errors_and_never_for_a_journal() {
        assert_eq!(complaint(VALID, true, 500, -1), None);
        assert_eq!(complaint(VALID, true, 5, 0), None);
        assert_eq!(complaint(0, true, 1, -1), None);
        assert_eq!(complaint(0, false, 1, -1), Some(Complaint::NotUnmounted));
        assert_eq!(
            complaint(VALID | ERRORS, true, 1, -1),
            Some(Complaint::Errors)
        );
        assert_eq!(complaint(VALID, true, 4, 5), None);
        assert_eq!(complaint(VALID, true, 5, 5), Some(Complaint::Mounts));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(mut bytes in proptest::collection::vec(0u8.., 0..1100)) {
            Superblock::parse(&bytes);
            if let Some(magic) = bytes.get_mut(0x38..0x3a) {
                magic.copy_from_slice(&[0x53, 0xEF]);
            }
            Superblock::parse(&bytes);
        }
    }
}
