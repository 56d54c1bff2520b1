//! The parts of the on-disk format.

use super::super::tree::{Node, NodeKind};
use super::IndexError;

pub(super) const BLOCK: u64 = 512;
pub(super) const BLOCK_BITS: u32 = 9;
pub(super) const SUPERBLOCK: usize = 1024;
/// Size of the superblock, and of a device slot.
pub(super) const SLOT: usize = 128;
/// Where inodes begin: the first block after the superblock's.
pub(super) const INODES: u64 = 1536;
/// Inodes are numbered in units of this many bytes from the start of the image.
pub(super) const NID_UNIT: u64 = 32;
pub(super) const INODE: u64 = 64;
pub(super) const DIRENT: usize = 12;
pub(super) const MAGIC: u32 = 0xE0F5_E1E2;
pub(super) const COMPAT_CHECKSUM_AND_MTIME: u32 = 0x3;
pub(super) const INCOMPAT_CHUNKED_AND_DEVICES: u32 = 0xC;

/// `i_format`: extended inode, and the data layout from bit 1 on.
pub(super) const EXTENDED: u16 = 1;
pub(super) const FLAT_PLAIN: u16 = 0;
pub(super) const FLAT_INLINE: u16 = 2;
pub(super) const CHUNK_BASED: u16 = 4;
/// Chunk format: entries are chunk indexes of 8 bytes.
pub(super) const CHUNK_INDEXES: u32 = 0x20;
pub(super) const CHUNK_INDEX: u64 = 8;
/// The layer's archive.
pub(super) const TAR_DEVICE: u16 = 1;
pub(super) const OWN_DEVICE: u16 = 0;
/// Address of a chunk without data.
pub(super) const HOLE: u32 = u32::MAX;
/// Chunks of a sparse file have at least this many bits, and there are at most so many of them.
pub(super) const SPARSE_CHUNK_BITS: u32 = 12;
pub(super) const SPARSE_CHUNKS: u64 = 65_536;

pub(super) const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

pub(super) const S_IFIFO: u32 = 0o010_000;
pub(super) const S_IFCHR: u32 = 0o020_000;
pub(super) const S_IFDIR: u32 = 0o040_000;
pub(super) const S_IFBLK: u32 = 0o060_000;
pub(super) const S_IFREG: u32 = 0o100_000;
pub(super) const S_IFLNK: u32 = 0o120_000;

/// Little-endian fields one after another.
#[derive(Default)]
pub(super) struct Fields(pub Vec<u8>);

impl Fields {
    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }
}

pub(super) fn too_large(bytes: u64) -> IndexError {
    IndexError::TooLarge(bytes)
}

pub(super) fn file_type(kind: &NodeKind) -> u8 {
    match kind {
        NodeKind::File { .. } => 1,
        NodeKind::Directory { .. } => 2,
        NodeKind::CharDevice { .. } | NodeKind::Whiteout => 3,
        NodeKind::BlockDevice { .. } => 4,
        NodeKind::Fifo => 5,
        NodeKind::Symlink { .. } => 7,
    }
}

/// The kernel's 32-bit form (`new_encode_dev`): minor bits 0–7, major, minor bits 8–19.
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub(super) fn chunk_index(device: u16, block: u32) -> [u8; 8] {
    let mut fields = Fields::default();
    fields.u16(0);
    fields.u16(if block == HOLE { OWN_DEVICE } else { device });
    fields.u32(block);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&fields.0);
    bytes
}

/// Size of a file's chunks as a power of two: one chunk for a file without holes.
pub(super) fn chunk_bits(node: &Node) -> Option<u32> {
    let NodeKind::File { size, sparse, .. } = &node.kind else {
        return None;
    };
    let bits = |chunks: u64| {
        let least = size.div_ceil(chunks).max(1);
        least.next_power_of_two().trailing_zeros()
    };
    Some(match sparse {
        None => bits(1).max(BLOCK_BITS),
        Some(_) => bits(SPARSE_CHUNKS).max(SPARSE_CHUNK_BITS),
    })
}

pub(super) fn chunks(node: &Node) -> Result<u64, IndexError> {
    match (&node.kind, chunk_bits(node)) {
        (NodeKind::File { size, .. }, Some(bits)) => {
            // The field for the size of chunks has five bits.
            if bits - BLOCK_BITS > 31 {
                return Err(too_large(*size));
            }
            Ok(size.div_ceil(1 << bits))
        }
        _ => Ok(0),
    }
}

/// The target of a symbolic link that fits into the block of its inode.
pub(super) fn inline_target(node: &Node, xattrs: u64) -> Option<&[u8]> {
    match &node.kind {
        NodeKind::Symlink { target } if INODE + xattrs + target.len() as u64 <= BLOCK => {
            Some(target)
        }
        _ => None,
    }
}

/// How many of the names fit into one block of a directory, and how many bytes they take there.
pub(super) fn fitting<'n>(names: impl Iterator<Item = &'n [u8]>) -> (usize, u64) {
    let mut count = 0;
    let mut bytes = 0;
    for name in names {
        let more = (DIRENT + name.len()) as u64;
        if bytes + more > BLOCK {
            break;
        }
        bytes += more;
        count += 1;
    }
    (count, bytes)
}

/// Bytes of a directory: whole blocks, except for the last, of which only the used part counts.
pub(super) fn directory_size<'n>(names: impl Iterator<Item = &'n [u8]>) -> u64 {
    let mut names: Vec<&[u8]> = names.collect();
    names.sort_unstable();
    let mut size = 0;
    let mut left = &names[..];
    loop {
        let (count, bytes) = fitting(left.iter().copied());
        match left.get(count..) {
            Some(rest) if !rest.is_empty() && count > 0 => {
                size += BLOCK;
                left = rest;
            }
            _ => return size + bytes,
        }
    }
}

pub(super) const XATTR_HEADER: u64 = 12;

/// EROFS keeps the namespace of an attribute as a number.
pub(super) fn xattr_name(name: &[u8]) -> Option<(u8, &[u8])> {
    const PREFIXES: [(u8, &[u8]); 5] = [
        (1, b"user."),
        (2, b"system.posix_acl_access"),
        (3, b"system.posix_acl_default"),
        (4, b"trusted."),
        (6, b"security."),
    ];
    PREFIXES
        .iter()
        .find_map(|(number, prefix)| Some((*number, name.strip_prefix(*prefix)?)))
}

/// The attributes of a node in the index.
pub(super) fn xattrs(node: &Node) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let opaque = matches!(node.kind, NodeKind::Directory { opaque: true, .. });
    node.xattrs
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .chain(opaque.then_some(OPAQUE))
        .filter_map(|(name, value)| {
            let (prefix, rest) = xattr_name(name)?;
            Some((prefix, rest, value))
        })
}

pub(super) fn xattrs_size(node: &Node) -> u64 {
    let entries: usize = xattrs(node)
        .map(|(_, name, value)| (4 + name.len() + value.len()).next_multiple_of(4))
        .sum();
    match entries {
        0 => 0,
        entries => XATTR_HEADER + entries as u64,
    }
}

pub(super) fn xattrs_bytes(node: &Node) -> Vec<u8> {
    // Name filter (unused without its feature bit), number of shared attributes, reserved.
    let mut fields = Fields(vec![0; XATTR_HEADER as usize]);
    for (prefix, name, value) in xattrs(node) {
        // Lengths were checked when the tree was built.
        fields.0.push(name.len() as u8);
        fields.0.push(prefix);
        fields.u16(value.len() as u16);
        fields.0.extend_from_slice(name);
        fields.0.extend_from_slice(value);
        let padded = fields.0.len().next_multiple_of(4);
        fields.0.resize(padded, 0);
    }
    fields.0
}

/// CRC-32C (Castagnoli) as the kernel computes it for the superblock: started with all ones, not
/// inverted at the end.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = 0_u32.wrapping_sub(crc & 1);
            crc = (crc >> 1) ^ (0x82F6_3B78 & mask);
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_standard_text() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn directories_fill_their_blocks() {
        let long = [b'a'; 255];
        assert_eq!(fitting([&long[..], &long, &long].into_iter()), (1, 267));
        assert_eq!(directory_size([&long[..], &long].into_iter()), 512 + 267);
        assert_eq!(directory_size([&b"."[..], b".."].into_iter()), 27);
    }

    #[test]
    fn device_numbers_are_the_kernels() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(0xfff, 0xf_ffff), 0xffff_ffff);
    }
}
