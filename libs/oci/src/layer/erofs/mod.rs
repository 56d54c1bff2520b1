//! An EROFS index over a layer's uncompressed archive.
//!
//! The index is a file system image without file data: inodes, directories, link targets and
//! extended attributes. Regular files are chunk-based inodes whose single chunk lies on the extra
//! device 1, which is the archive itself; that works with blocks of 512 bytes, the unit of tar.
//! Sparse files have their data copied behind the index, because their parts are packed in the
//! archive.
//!
//! Layout: superblock at 1024, one device slot behind it, inodes from [`INODES`] on, directories
//! and long link targets in blocks of their own, then copied data. On-disk format: the kernel's
//! `fs/erofs/erofs_fs.h`. Everything here is pure; [`ErofsIndex`] lists what to write, and where.

mod format;
mod write;

use super::tree::{Node, NodeId, NodeKind, ROOT, Tree};
use format::{
    BLOCK, CHUNK_INDEX, HOLE, INODE, INODES, NID_UNIT, chunks, directory_size, inline_target,
    too_large, xattrs_size,
};

/// Why a layer can't be indexed. It can still be unpacked.
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

/// The contents of the index file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErofsIndex {
    /// The file's first bytes.
    pub metadata: Vec<u8>,
    /// Data of sparse files, behind them.
    pub copies: Vec<CopyRange>,
    /// The file's size. Parts that neither metadata nor copies cover are holes.
    pub size: u64,
}

/// The positions of a node's parts.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// Byte offset of the inode; 0 for nodes that nothing leads to.
    inode: u64,
    /// Bytes of extended attributes behind the inode.
    xattrs: u64,
    /// First block of a directory, a long link target, or nothing.
    block: u32,
    /// Bytes of a directory.
    size: u64,
    /// The directory that it is in (directories only).
    parent: NodeId,
}

/// Makes the index of a tree whose archive has `tar_size` bytes.
pub fn index(tree: &Tree, tar_size: u64) -> Result<ErofsIndex, IndexError> {
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
    fn run(mut self, tar_size: u64) -> Result<ErofsIndex, IndexError> {
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
        Ok(ErofsIndex {
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

    /// Assigns a position to the inode of every reachable node, directory by directory, so that the
    /// inodes of a directory are read together. Returns the end of the inodes.
    fn place_inodes(&mut self) -> Result<u64, IndexError> {
        let mut end = self.place_inode(ROOT, INODES)?;
        let mut directories = std::collections::VecDeque::from([ROOT]);
        while let Some(directory) = directories.pop_front() {
            let tree = self.tree;
            let Some(Node {
                kind: NodeKind::Directory { children, .. },
                ..
            }) = tree.node(directory)
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
                    self.place_mut(id)?.parent = directory;
                    directories.push_back(id);
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
        // The largest number marks a hole.
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
                    directory_size(names)
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
}
