//! Writes the parts to their positions.

use super::super::tree::{NodeId, NodeKind, ROOT};
use super::format::{
    BLOCK, BLOCK_BITS, CHUNK_BASED, CHUNK_INDEX, CHUNK_INDEXES, COMPAT_CHECKSUM_AND_MTIME, DIRENT,
    EXTENDED, FLAT_INLINE, FLAT_PLAIN, Fields, HOLE, INCOMPAT_CHUNKED_AND_DEVICES, INODE, MAGIC,
    NID_UNIT, OWN_DEVICE, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SLOT,
    SPARSE_CHUNK_BITS, SUPERBLOCK, TAR_DEVICE, XATTR_HEADER, chunk_bits, chunk_index, crc32c,
    device_number, file_type, fitting, inline_target, too_large, xattrs_bytes,
};
use super::{CopyRange, IndexError, Place, Writer};
use crate::archive::SparsePart;

impl Writer<'_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), IndexError> {
        let at = usize::try_from(at).map_err(|_| IndexError::Inconsistent)?;
        self.metadata
            .get_mut(at..at + bytes.len())
            .ok_or(IndexError::Inconsistent)?
            .copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn write_node(&mut self, id: NodeId) -> Result<(), IndexError> {
        let tree = self.tree;
        let node = tree.node(id).ok_or(IndexError::Inconsistent)?;
        let place = self.place(id)?;
        let tail = place.inode + INODE + place.xattrs;
        let mut links = node.names;
        let (kind, layout, size, data) = match &node.kind {
            NodeKind::Directory { children, .. } => {
                let mut directories = 0;
                for child in children.values() {
                    if let NodeKind::Directory { .. } = self.node(*child)?.kind {
                        directories += 1;
                    }
                }
                links = 2 + directories;
                self.write_directory(id, place, children.iter())?;
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

    fn write_directory<'n>(
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

    pub(super) fn write_superblock(&mut self, tar_size: u64) -> Result<(), IndexError> {
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
        fields.u64(0); // time of compact inodes; there are none
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
