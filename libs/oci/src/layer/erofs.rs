//! An EROFS index over a layer's uncompressed archive.
//!
//! The index is a file system image without file data: inodes, folders, link targets and extended
//! attributes. Regular files are chunk-based inodes whose single chunk lies on the extra device 1,
//! which is the archive itself; that works with blocks of 512 bytes, the unit of tar. Sparse files
//! have their data copied behind the index, because their parts are packed in the archive.
//!
//! Layout: superblock at 1024, one device slot behind it, inodes from [`INODES`] on, folders and
//! long link targets in blocks of their own, then copied data. On-disk format: the kernel's
//! `fs/erofs/erofs_fs.h`. Everything here is pure; [`Index`] says what to write where.

use super::tree::{Node, NodeId, NodeKind, ROOT, Tree};
use crate::archive::SparsePart;

const BLOCK: u64 = 512;
const BLOCK_BITS: u32 = 9;
const SUPERBLOCK: usize = 1024;
/// Size of the superblock, and of a device slot.
const SLOT: usize = 128;
/// Where inodes begin: the first block behind the superblock's.
const INODES: u64 = 1536;
/// Inodes are numbered in units of this many bytes from the start of the image.
const NID_UNIT: u64 = 32;
const INODE: u64 = 64;
const DIRENT: usize = 12;
const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_CHECKSUM_AND_MTIME: u32 = 0x3;
const INCOMPAT_CHUNKED_AND_DEVICES: u32 = 0xC;

/// `i_format`: extended inode, and the data layout from bit 1 on.
const EXTENDED: u16 = 1;
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
const CHUNK_BASED: u16 = 4;
/// Chunk format: entries are chunk indexes of 8 bytes.
const CHUNK_INDEXES: u32 = 0x20;
const CHUNK_INDEX: u64 = 8;
/// The layer's archive.
const TAR_DEVICE: u16 = 1;
const OWN_DEVICE: u16 = 0;
/// Address of a chunk without data.
const HOLE: u32 = u32::MAX;
/// Chunks of a sparse file have at least this many bits, and there are at most so many of them.
const SPARSE_CHUNK_BITS: u32 = 12;
const SPARSE_CHUNKS: u64 = 65_536;

const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// Why a layer cannot be indexed; it can still be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// An address does not fit into 32 bits of blocks.
    #[error("the layer is too large for an EROFS index: {0} bytes")]
    TooLarge(u64),
    /// A tree that contradicts itself.
    #[error("the layer's tree is inconsistent")]
    Inconsistent,
}

/// Bytes to be copied from the archive into the index file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRange {
    /// Where they are in the archive.
    pub from: u64,
    /// Where they go in the index file.
    pub to: u64,
    /// How many.
    pub length: u64,
}

/// What the index file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The file's first bytes.
    pub metadata: Vec<u8>,
    /// Data of sparse files, behind them.
    pub copies: Vec<CopyRange>,
    /// The file's size; what neither metadata nor copies cover is a hole.
    pub size: u64,
}

/// Where a node's parts lie.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Byte offset of the inode; 0 for nodes that nothing leads to.
    inode: u64,
    /// Bytes of extended attributes behind the inode.
    xattrs: u64,
    /// First block of a folder, a long link target, or nothing.
    block: u32,
    /// Bytes of a folder.
    size: u64,
    /// The folder that it is in (folders only).
    parent: NodeId,
}

/// Makes the index of a tree whose archive has `tar_size` bytes.
pub fn index(tree: &Tree, tar_size: u64) -> Result<Index, IndexError> {
    Writer {
        tree,
        places: vec![Place::default(); tree.nodes.len()],
        order: Vec::new(),
        metadata: Vec::new(),
        copies: Vec::new(),
        next_block: 0,
    }
    .run(tar_size)
}

struct Writer<'a> {
    tree: &'a Tree,
    places: Vec<Place>,
    /// Nodes in the order of their inodes.
    order: Vec<NodeId>,
    metadata: Vec<u8>,
    copies: Vec<CopyRange>,
    next_block: u64,
}

impl Writer<'_> {
    fn run(mut self, tar_size: u64) -> Result<Index, IndexError> {
        let inodes_end = self.place_inodes()?;
        self.next_block = inodes_end.div_ceil(BLOCK);
        self.place_blocks()?;
        let metadata_end = self.next_block * BLOCK;
        self.metadata =
            vec![0; usize::try_from(metadata_end).map_err(|_| too_large(metadata_end))?];
        for id in std::mem::take(&mut self.order) {
            self.write_node(id)?;
        }
        self.write_superblock(tar_size)?;
        Ok(Index {
            metadata: self.metadata,
            copies: self.copies,
            size: self.next_block * BLOCK,
        })
    }

    fn node(&self, id: NodeId) -> Result<&Node, IndexError> {
        self.tree.node(id).ok_or(IndexError::Inconsistent)
    }

    fn place(&self, id: NodeId) -> Result<Place, IndexError> {
        self.places
            .get(id as usize)
            .copied()
            .ok_or(IndexError::Inconsistent)
    }

    fn place_mut(&mut self, id: NodeId) -> Result<&mut Place, IndexError> {
        self.places
            .get_mut(id as usize)
            .ok_or(IndexError::Inconsistent)
    }

    /// Gives every reachable node the place of its inode, folder by folder, so that what is listed
    /// together is read together. Gives the end of the inodes.
    fn place_inodes(&mut self) -> Result<u64, IndexError> {
        let mut end = self.place_inode(ROOT, INODES)?;
        let mut folders = std::collections::VecDeque::from([ROOT]);
        while let Some(folder) = folders.pop_front() {
            let tree = self.tree;
            let Some(Node {
                kind: NodeKind::Directory { children, .. },
                ..
            }) = tree.node(folder)
            else {
                return Err(IndexError::Inconsistent);
            };
            for id in children.values().copied() {
                // Other names of the same file.
                if self.place(id)?.inode != 0 {
                    continue;
                }
                end = self.place_inode(id, end)?;
                if let NodeKind::Directory { .. } = self.node(id)?.kind {
                    self.place_mut(id)?.parent = folder;
                    folders.push_back(id);
                }
            }
        }
        Ok(end)
    }

    fn place_inode(&mut self, id: NodeId, end: u64) -> Result<u64, IndexError> {
        let node = self.node(id)?;
        let xattrs = xattrs_size(node);
        let mut at = end.next_multiple_of(NID_UNIT);
        let length = match inline_target(node, xattrs) {
            Some(target) => {
                let length = INODE + xattrs + target.len() as u64;
                // Inline data must not cross the end of a block.
                if at % BLOCK + length > BLOCK {
                    at = at.next_multiple_of(BLOCK);
                }
                length
            }
            None => (INODE + xattrs).next_multiple_of(CHUNK_INDEX) + chunks(node)? * CHUNK_INDEX,
        };
        let place = self.place_mut(id)?;
        place.inode = at;
        place.xattrs = xattrs;
        self.order.push(id);
        Ok(at + length)
    }

    fn take_blocks(&mut self, bytes: u64) -> Result<u32, IndexError> {
        let first = self.next_block;
        self.next_block += bytes.div_ceil(BLOCK);
        // The largest number stands for a hole.
        if self.next_block >= u64::from(HOLE) {
            return Err(too_large(self.next_block * BLOCK));
        }
        u32::try_from(first).map_err(|_| too_large(first * BLOCK))
    }

    fn place_blocks(&mut self) -> Result<(), IndexError> {
        for id in self.order.clone() {
            let xattrs = self.place(id)?.xattrs;
            let node = self.node(id)?;
            let size = match &node.kind {
                NodeKind::Directory { children, .. } => {
                    let names = [&b"."[..], b".."]
                        .into_iter()
                        .chain(children.keys().map(|name| &**name));
                    folder_size(names)
                }
                NodeKind::Symlink { target } if inline_target(node, xattrs).is_none() => {
                    target.len() as u64
                }
                _ => continue,
            };
            let block = self.take_blocks(size)?;
            let place = self.place_mut(id)?;
            place.block = block;
            place.size = size;
        }
        Ok(())
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), IndexError> {
        let at = usize::try_from(at).map_err(|_| IndexError::Inconsistent)?;
        self.metadata
            .get_mut(at..at + bytes.len())
            .ok_or(IndexError::Inconsistent)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn write_node(&mut self, id: NodeId) -> Result<(), IndexError> {
        let tree = self.tree;
        let node = tree.node(id).ok_or(IndexError::Inconsistent)?;
        let place = self.place(id)?;
        let tail = place.inode + INODE + place.xattrs;
        let mut links = node.names;
        let (kind, layout, size, data) = match &node.kind {
            NodeKind::Directory { children, .. } => {
                let mut folders = 0;
                for child in children.values() {
                    if let NodeKind::Directory { .. } = self.node(*child)?.kind {
                        folders += 1;
                    }
                }
                links = 2 + folders;
                self.write_folder(id, place, children.iter())?;
                (S_IFDIR, FLAT_PLAIN, place.size, place.block)
            }
            NodeKind::File { size: 0, .. } => (S_IFREG, FLAT_PLAIN, 0, HOLE),
            NodeKind::File {
                size,
                offset,
                sparse: None,
            } => {
                let block = u32::try_from(offset / BLOCK)
                    .ok()
                    .filter(|block| *block != HOLE && offset % BLOCK == 0)
                    .ok_or(too_large(*offset))?;
                let bits = chunk_bits(node).unwrap_or(BLOCK_BITS);
                self.put(
                    tail.next_multiple_of(CHUNK_INDEX),
                    &chunk_index(TAR_DEVICE, block),
                )?;
                (
                    S_IFREG,
                    CHUNK_BASED,
                    *size,
                    CHUNK_INDEXES | (bits - BLOCK_BITS),
                )
            }
            NodeKind::File {
                size,
                offset,
                sparse: Some(parts),
            } => {
                let bits = chunk_bits(node).unwrap_or(SPARSE_CHUNK_BITS);
                self.write_sparse(
                    tail.next_multiple_of(CHUNK_INDEX),
                    *size,
                    bits,
                    *offset,
                    parts,
                )?;
                (
                    S_IFREG,
                    CHUNK_BASED,
                    *size,
                    CHUNK_INDEXES | (bits - BLOCK_BITS),
                )
            }
            NodeKind::Symlink { target } => {
                let size = target.len() as u64;
                if inline_target(node, place.xattrs).is_some() {
                    self.put(tail, target)?;
                    (S_IFLNK, FLAT_INLINE, size, 0)
                } else {
                    self.put(u64::from(place.block) * BLOCK, target)?;
                    (S_IFLNK, FLAT_PLAIN, size, place.block)
                }
            }
            NodeKind::CharDevice { major, minor } => {
                (S_IFCHR, FLAT_PLAIN, 0, device_number(*major, *minor))
            }
            NodeKind::BlockDevice { major, minor } => {
                (S_IFBLK, FLAT_PLAIN, 0, device_number(*major, *minor))
            }
            NodeKind::Fifo => (S_IFIFO, FLAT_PLAIN, 0, 0),
            // overlayfs's form of a whiteout is a character device 0/0.
            NodeKind::Whiteout => (S_IFCHR, FLAT_PLAIN, 0, 0),
        };
        let permissions = match node.kind {
            NodeKind::Symlink { .. } => 0o777,
            _ => node.mode & 0o7777,
        };
        let xattr_units = match place.xattrs {
            0 => 0,
            size => u16::try_from((size - XATTR_HEADER) / 4 + 1)
                .map_err(|_| IndexError::Inconsistent)?,
        };
        let mut inode = Fields::default();
        inode.u16(EXTENDED | (layout << 1));
        inode.u16(xattr_units);
        inode.u16(u16::try_from(kind | permissions).map_err(|_| IndexError::Inconsistent)?);
        inode.u16(0);
        inode.u64(size);
        inode.u32(data);
        // For stat(2) of 32-bit programs.
        inode.u32(u32::try_from(place.inode / NID_UNIT).unwrap_or(u32::MAX));
        inode.u32(node.uid);
        inode.u32(node.gid);
        inode.u64(node.mtime.cast_unsigned());
        inode.u32(node.mtime_nsec);
        inode.u32(links);
        self.put(place.inode, &inode.0)?;
        if place.xattrs > 0 {
            self.put(place.inode + INODE, &xattrs_bytes(node))?;
        }
        Ok(())
    }

    fn write_folder<'n>(
        &mut self,
        id: NodeId,
        place: Place,
        children: impl Iterator<Item = (&'n Box<[u8]>, &'n NodeId)>,
    ) -> Result<(), IndexError> {
        // Sorted by bytes, with `.` and `..` in their places among the others.
        let mut entries: Vec<(&[u8], NodeId)> = vec![(b".", id), (b"..", place.parent)];
        entries.extend(children.map(|(name, child)| (&**name, *child)));
        entries.sort_unstable();
        let mut at = u64::from(place.block) * BLOCK;
        let mut left = &entries[..];
        while !left.is_empty() {
            let (count, _) = fitting(left.iter().map(|(name, _)| *name));
            let (here, rest) = left
                .split_at_checked(count)
                .ok_or(IndexError::Inconsistent)?;
            let mut head = Fields::default();
            let mut names = Vec::new();
            for (name, child) in here {
                let offset = DIRENT * count + names.len();
                head.u64(self.place(*child)?.inode / NID_UNIT);
                head.u16(u16::try_from(offset).map_err(|_| IndexError::Inconsistent)?);
                head.0.push(file_type(&self.node(*child)?.kind));
                head.0.push(0);
                names.extend_from_slice(name);
            }
            head.0.extend_from_slice(&names);
            self.put(at, &head.0)?;
            at += BLOCK;
            left = rest;
        }
        Ok(())
    }

    /// Writes the chunk indexes of a sparse file and plans the copying of its data.
    fn write_sparse(
        &mut self,
        at: u64,
        size: u64,
        bits: u32,
        offset: u64,
        parts: &[SparsePart],
    ) -> Result<(), IndexError> {
        let count = size.div_ceil(1 << bits);
        let mut addresses = vec![HOLE; usize::try_from(count).map_err(|_| too_large(size))?];
        let mut from = offset;
        for part in parts {
            let mut done = 0;
            while done < part.length {
                let position = part.offset + done;
                let chunk = position >> bits;
                let within = position - (chunk << bits);
                let length = (part.length - done).min((1 << bits) - within);
                let slot = usize::try_from(chunk).map_err(|_| too_large(size))?;
                let mut block = *addresses.get(slot).ok_or(IndexError::Inconsistent)?;
                if block == HOLE {
                    block = self.take_blocks((1 << bits).min(size - (chunk << bits)))?;
                    if let Some(address) = addresses.get_mut(slot) {
                        *address = block;
                    }
                }
                self.copies.push(CopyRange {
                    from,
                    to: u64::from(block) * BLOCK + within,
                    length,
                });
                from += length;
                done += length;
            }
        }
        for (number, block) in addresses.into_iter().enumerate() {
            let entry = chunk_index(OWN_DEVICE, block);
            self.put(at + number as u64 * CHUNK_INDEX, &entry)?;
        }
        Ok(())
    }

    fn write_superblock(&mut self, tar_size: u64) -> Result<(), IndexError> {
        let blocks =
            |bytes: u64| u32::try_from(bytes.div_ceil(BLOCK)).map_err(|_| too_large(bytes));
        let root = self.place(ROOT)?.inode / NID_UNIT;
        let inodes = self.places.iter().filter(|place| place.inode != 0).count();
        let mut fields = Fields::default();
        fields.u32(MAGIC);
        fields.u32(0); // checksum, below
        fields.u32(COMPAT_CHECKSUM_AND_MTIME);
        fields.0.extend([BLOCK_BITS as u8, 0]);
        fields.u16(u16::try_from(root).map_err(|_| IndexError::Inconsistent)?);
        fields.u64(inodes as u64);
        fields.u64(0); // time of compact inodes, of which there are none
        fields.u32(0);
        fields.u32(blocks(self.next_block * BLOCK)?);
        fields.u32(0); // meta_blkaddr: inode numbers count from the image's start
        fields.u32(0); // xattr_blkaddr: no shared attributes
        fields.0.extend([0; 32]); // uuid and volume name
        fields.u32(INCOMPAT_CHUNKED_AND_DEVICES);
        fields.u16(0);
        fields.u16(1); // extra devices
        fields
            .u16(u16::try_from((SUPERBLOCK + SLOT) / SLOT).map_err(|_| IndexError::Inconsistent)?);
        fields.0.resize(SLOT, 0);
        // The device slot: 64 bytes of tag, blocks, mapped address.
        fields.0.resize(SLOT + 64, 0);
        fields.u32(blocks(tar_size)?);
        fields.u32(0);
        fields.0.resize(BLOCK as usize, 0);
        let checksum = crc32c(&fields.0);
        self.put(SUPERBLOCK as u64, &fields.0)?;
        self.put(SUPERBLOCK as u64 + 4, &checksum.to_le_bytes())
    }
}

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Little-endian fields one after another.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }
}

fn too_large(bytes: u64) -> IndexError {
    IndexError::TooLarge(bytes)
}

fn file_type(kind: &NodeKind) -> u8 {
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
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn chunk_index(device: u16, block: u32) -> [u8; 8] {
    let mut fields = Fields::default();
    fields.u16(0);
    fields.u16(if block == HOLE { OWN_DEVICE } else { device });
    fields.u32(block);
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&fields.0);
    bytes
}

/// Size of a file's chunks as a power of two: one chunk for a file without holes.
fn chunk_bits(node: &Node) -> Option<u32> {
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

fn chunks(node: &Node) -> Result<u64, IndexError> {
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
fn inline_target(node: &Node, xattrs: u64) -> Option<&[u8]> {
    match &node.kind {
        NodeKind::Symlink { target } if INODE + xattrs + target.len() as u64 <= BLOCK => {
            Some(target)
        }
        _ => None,
    }
}

/// How many of the names fit into one block of a folder, and how many bytes they take there.
fn fitting<'n>(names: impl Iterator<Item = &'n [u8]>) -> (usize, u64) {
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

/// Bytes of a folder: whole blocks, but of the last one only what is used.
fn folder_size<'n>(names: impl Iterator<Item = &'n [u8]>) -> u64 {
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

const XATTR_HEADER: u64 = 12;

/// EROFS keeps the namespace of an attribute as a number.
fn xattr_name(name: &[u8]) -> Option<(u8, &[u8])> {
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

/// The attributes that the index gives a node.
fn xattrs(node: &Node) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
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

fn xattrs_size(node: &Node) -> u64 {
    let entries: usize = xattrs(node)
        .map(|(_, name, value)| (4 + name.len() + value.len()).next_multiple_of(4))
        .sum();
    match entries {
        0 => 0,
        entries => XATTR_HEADER + entries as u64,
    }
}

fn xattrs_bytes(node: &Node) -> Vec<u8> {
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
fn crc32c(bytes: &[u8]) -> u32 {
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
    fn folders_fill_their_blocks() {
        let long = [b'a'; 255];
        assert_eq!(fitting([&long[..], &long, &long].into_iter()), (1, 267));
        assert_eq!(folder_size([&long[..], &long].into_iter()), 512 + 267);
        assert_eq!(folder_size([&b"."[..], b".."].into_iter()), 27);
    }

    #[test]
    fn device_numbers_are_the_kernels() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(0xfff, 0xf_ffff), 0xffff_ffff);
    }
}
