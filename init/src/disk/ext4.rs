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
}

impl Superblock {
    /// Reads the bytes of a superblock. `None` if they are not one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| -> Option<u32> {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
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
